"""Run Autobahn direct and through the proxy and compare: `python -m tests.autobahn [CASES ...]`, as in `1.* 12.1.*`."""

import asyncio
import sys

from .build import NotBuildableError, build
from .suite import GROUPS, QUICK, Verdict, run


def table(direct: dict[str, Verdict], through: dict[str, Verdict]) -> str:
    """Print the verdicts by group."""
    lines = ["| | group | cases | direct: OK, non-strict, informational, failed | differ |", "|---|---|---|---|---|"]
    for group, name in GROUPS.items():
        cases = [case for case in direct if case.partition(".")[0] == group]
        if cases:
            counts = [
                sum(direct[case].behavior == said for case in cases)
                for said in ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED")
            ]
            differ = sum(direct[case] != through.get(case) for case in cases)
            lines.append(f"| {group} | {name} | {len(cases)} | {', '.join(map(str, counts))} | {differ} |")
    return "\n".join(lines)


async def main(cases: list[str]) -> int:
    """Print the table and what differs; give 1 where anything does."""
    try:
        build()
    except NotBuildableError as error:
        print(f"the Autobahn test suite needs {error}", file=sys.stderr)
        return 2
    direct, through = await run(cases or [*QUICK, "12.*", "13.*"])
    print(table(direct, through))
    for case in sorted(direct.keys() | through.keys()):
        if direct.get(case) != through.get(case):
            print(f"{case}: direct {direct.get(case)}, through the proxy {through.get(case)}")
    return int(direct != through)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
