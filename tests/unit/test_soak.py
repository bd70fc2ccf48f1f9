"""The soak's judgement: growth is seen through noise, noise is no growth; and its picture can be drawn."""

import math
from collections import Counter
from random import Random
from xml.etree import ElementTree

import pytest

from benchmarks.soak import plot
from benchmarks.soak.run import ALLOWED_BYTES, Plan, Result, Sample
from benchmarks.soak.trend import FEWEST_SAMPLES, MOST_SAMPLES, judge

TIMES = [float(second) for second in range(300)]


def noise(seed: int, size: float) -> list[float]:
    random = Random(seed)
    return [random.gauss(0, size) for _ in TIMES]


@pytest.mark.parametrize("seed", range(20))
def test_what_stands_still_holds_however_it_jumps_about(seed: int) -> None:
    values = [100 + n for n in noise(seed, 5)]
    assert judge(TIMES, values, allowed=5).held


@pytest.mark.parametrize("seed", range(20))
def test_a_steady_growth_is_found_within_the_same_noise(seed: int) -> None:
    values = [100 + 0.05 * t + n for t, n in zip(TIMES, noise(seed, 5), strict=True)]
    verdict = judge(TIMES, values, allowed=5)
    assert not verdict.held
    assert verdict.slope_growth == pytest.approx(15, abs=4)


def test_spikes_at_the_end_and_lulls_at_the_beginning_are_no_growth() -> None:
    values = [100.0] * len(TIMES)
    values[-60:] = [500.0] * 60
    assert judge(TIMES, values, allowed=5).held
    values = [100.0] * len(TIMES)
    values[:60] = [10.0] * 60
    assert judge(TIMES, values, allowed=5).held


def test_steps_that_never_come_back_are_growth() -> None:
    values = [100.0 + 10 * (t // 50) for t in TIMES]
    assert not judge(TIMES, values, allowed=5).held


def test_what_shrinks_holds() -> None:
    assert judge(TIMES, [1000 - t for t in TIMES], allowed=0).held


def test_a_wave_is_no_growth() -> None:
    assert judge(TIMES, [100 + 20 * math.sin(t / 10) for t in TIMES], allowed=5).held


def test_a_long_series_is_judged_by_every_nth_of_its_samples() -> None:
    times = [float(t) for t in range(MOST_SAMPLES * 3)]
    assert judge(times, [2 * t for t in times], allowed=0).slope_growth == pytest.approx(2 * times[-1])


def test_a_short_series_says_nothing() -> None:
    with pytest.raises(ValueError, match="expected at least 12 samples, found 11"):
        judge(TIMES[: FEWEST_SAMPLES - 1], TIMES[: FEWEST_SAMPLES - 1], allowed=1)


def result(*, grows: float = 0.0, **left: float) -> Result:
    samples = [Sample(t, round(50e6 + grows * t), 40, 20, 0.001, 100.0, 20.0) for t in TIMES]
    verdict = judge(TIMES, [s.rss_bytes for s in samples], ALLOWED_BYTES)
    return Result(samples, {"memory": (verdict, 2**-20, "MiB")}, dict(left), Counter(visits=6000))


def test_a_run_holds_only_where_nothing_grows_nothing_is_left_and_nothing_went_wrong() -> None:
    assert result().held
    assert "no connection, tunnel, pooled connection, descriptor, task or awaited page" in result().text()
    grown = result(grows=20_000)
    assert not grown.held
    assert "memory grew by +5.7 MiB by slope, +5.7 by thirds: GROWS (allowed: 2)" in grown.text()
    left = result(open_tunnels=1)
    assert not left.held
    assert "LEFT: open_tunnels: 1 more than before" in left.text()
    wrong = result()
    wrong.counts["problems"] += 1
    assert not wrong.held


def test_the_limits_are_what_their_reasons_say() -> None:
    visits = 20 * (20 * 60 - Plan(20 * 60, 20, 0).warm_s)
    assert ALLOWED_BYTES / visits == pytest.approx(97, abs=1)
    assert ALLOWED_BYTES / (20 * (120 - Plan(120, 20, 0).warm_s)) == pytest.approx(1.1 * 1024, rel=0.05)


def test_the_picture_is_well_formed_and_has_a_line_for_each_series() -> None:
    panels = [plot.Panel("One & <only>", "said", {"a": [1.0, 2.0, 0.0], "b": [0.0, 0.0, 1.0]}),
              plot.Panel("Nothing", "", {"a": [0.0, 0.0, 0.0]})]  # fmt: skip
    root = ElementTree.fromstring(plot.draw("Title", "said", [0.0, 1.0, 2.0], panels, 0.5))
    paths = [element for element in root.iter() if element.tag.endswith("path")]
    assert len(paths) == 3
    assert all("nan" not in path.attrib["d"] for path in paths)
    assert any("One & <only>" in text for text in root.itertext())
