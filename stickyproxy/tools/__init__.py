"""Commands beside `run`, for people: each module here exports one click command."""
