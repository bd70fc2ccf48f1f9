"""Judge the whole corpus and print the verdicts: `python -m tests.smuggling [WORD]`; WORD: only ids that have it."""

import logging
import sys
import time

import uvloop

from .corpus import REQUESTS, RESPONSES, expectation, table
from .judge import Judge, Verdict


async def main(word: str) -> int:
    """Print what is not as expected, and the table; give 1 where something is unsafe or unexpected."""
    cases = [case for case in (*REQUESTS, *RESPONSES) if word in case.id]
    judge = Judge()
    await judge.start()
    began = time.monotonic()
    verdicts: list[Verdict] = await judge.judge(cases)
    took = time.monotonic() - began
    await judge.close()
    for verdict in verdicts:
        if verdict.problem:
            what = "differs" if verdict.safe else "UNSAFE"
            print(f"{what} {verdict.case.id} (expected: {expectation(verdict.case)}): {verdict.problem}")
    print(table(verdicts))
    print(f"{len(cases)} cases in {took:.1f} s")
    return int(any(verdict.problem for verdict in verdicts))


if __name__ == "__main__":
    logging.getLogger("stickyproxy").setLevel(logging.ERROR)  # it says of many answers that they are not HTTP
    sys.exit(uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else "")))
