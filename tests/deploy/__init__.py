"""What is in deploy/: rendered, compared with the command line, and its commands run for real."""
