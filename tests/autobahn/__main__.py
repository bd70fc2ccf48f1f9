"""Run Autobahn direct and through the proxy and compare: `python -m tests.autobahn [--park] [CASES ...]`, as in `1.*`.

--park: by the address of a NiceGUI page's socket, to a proxy that parks pages.
"""

import asyncio
import sys

from .build import NotBuildableError, build
from .suite import ACCEPTABLE, GROUPS, QUICK, Result, compare


def table(result: Result) -> str:
    """Print the verdicts by group; `varied`: they differed at first, and agreed in a later round."""
    lines = ["| | group | cases | direct: OK, non-strict, informational, failed | varied | differ |"]
    lines.append("|---|---|---|---|---|---|")
    for group, name in GROUPS.items():
        cases = [case for case in result.direct if case.partition(".")[0] == group]
        if cases:
            said = [result.direct[case].behavior for case in cases]
            counts = ", ".join(str(said.count(word)) for word in (*ACCEPTABLE, "FAILED"))
            differ = len(result.differ.intersection(cases))
            varied = len(result.vary.intersection(cases)) - differ
            lines.append(f"| {group} | {name} | {len(cases)} | {counts} | {varied} | {differ} |")
    return "\n".join(lines)


async def main(cases: list[str]) -> int:
    """Print the table and what differs; give 1 where anything does."""
    try:
        build()
    except NotBuildableError as error:
        print(f"the Autobahn test suite needs {error}", file=sys.stderr)
        return 2
    park = "--park" in cases
    wanted = [case for case in cases if case != "--park"]
    result = await compare(wanted or [*QUICK, "12.*", "13.*"], park=park)
    print(table(result))
    for case in sorted(result.vary):
        what = "differs" if case in result.differ else "varied"
        print(f"{case} {what}: direct {result.direct.get(case)}, through the proxy {result.through.get(case)}")
    return int(bool(result.differ))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
