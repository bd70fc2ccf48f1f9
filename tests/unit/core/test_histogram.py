"""Durations fall into the bucket whose bound includes them."""

import pytest

from stickyproxy.core.histogram import BUCKETS_S, Histogram


@pytest.mark.parametrize("index", range(len(BUCKETS_S)))
def test_a_bound_belongs_to_its_bucket_and_what_is_above_to_the_next(index: int) -> None:
    histogram = Histogram()
    histogram.observe(BUCKETS_S[index])
    histogram.observe(BUCKETS_S[index] * 1.001)
    assert histogram.counts[index] == 1
    assert histogram.counts[index + 1] == 1
    assert histogram.sum_s == pytest.approx(BUCKETS_S[index] * 2.001)


def test_what_is_longer_than_every_bound_is_counted_too() -> None:
    histogram = Histogram()
    histogram.observe(1e9)
    assert (histogram.counts[-1], histogram.total) == (1, 1)


def test_two_add_up_and_the_other_stays_as_it_is() -> None:
    one, two = Histogram(), Histogram()
    one.observe(0.5)
    two.observe(0.5)
    two.observe(7)
    one.add(two)
    assert (one.total, one.sum_s, two.total) == (3, 8.0, 2)
