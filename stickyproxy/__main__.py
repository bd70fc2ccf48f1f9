"""`python -m stickyproxy`."""

from stickyproxy.cli import main

if __name__ == "__main__":
    main()
