"""`stickyproxy verify URL`: behave like several browsers, and say what breaks their sessions, with evidence and a fix.

Laws:
- `seen`, `document`, `packets`, `chance`, `catalogue`, `findings`, `rules*` and `report` are pure: what was seen goes
  in, findings and text come out. `web`, `lines`, `visitors`, `checks_*` and `run` do as browsers do and judge nothing.
- No more pages are opened than was said before, and each is closed as a browser closes it, where that is possible.
- A fault is claimed only where it was seen twice or cannot come by chance; what cannot be told is said.
- Client ids, values of cookies, headers and passwords are never printed: they are secrets of the app's users.
- Nothing here is imported before the command is asked for.
"""
