"""Samples of the last ten minutes: bounded, and the first of them is what `recent` counts from."""

from typing import Any

from stickyproxy.admin.history import MOST_BACKENDS, SAMPLE_S, History


def figures(at: float, *pages: int) -> dict[str, Any]:
    backends = [{"name": f"b{i}", "pages": count} for i, count in enumerate(pages)]
    return {"at": at, "totals": {"pages": sum(pages)}, "backends": backends}


def test_ten_minutes_are_kept_and_no_more() -> None:
    history = History()
    for number in range(1000):
        history.add(figures(number * SAMPLE_S, number))
    samples = history.figures()
    assert samples[-1]["at"] - samples[0]["at"] == 600
    assert samples[-1]["pages"] == {"b0": 999}
    first = history.since(samples[0]["at"] + 0.1)
    assert first is not None
    assert first.at == samples[1]["at"]
    assert history.since(1e9) is None


def test_of_many_backends_those_with_the_most_pages_are_kept() -> None:
    history = History()
    history.add(figures(0.0, *range(1000)))
    assert history.figures()[0]["pages"] == {f"b{i}": i for i in range(999, 999 - MOST_BACKENDS, -1)}
