"""The command, also as `python -m stickyproxy`; the health check starts without what the others need."""

import sys


def main() -> None:
    """Run the command line; ends the process."""
    if sys.argv[1:2] == ["healthcheck"]:  # run every few seconds, so it does not load the command line's libraries
        from stickyproxy.tools.healthcheck import main as healthcheck

        healthcheck(sys.argv[2:])
    from stickyproxy.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
