"""Apps that the end-to-end tests run in processes of their own."""
