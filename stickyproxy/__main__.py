"""The command, also as `python -m stickyproxy`; the health check and `run` do without the command line's libraries."""

import sys


def main() -> None:
    """Run the command line; ends the process."""
    if sys.argv[1:2] == ["healthcheck"]:  # which is run every few seconds
        from stickyproxy.tools.healthcheck import main as healthcheck

        healthcheck(sys.argv[2:])
    if sys.argv[1:2] == ["run"]:
        from stickyproxy.starting import run

        run(sys.argv[2:])
    from stickyproxy.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
