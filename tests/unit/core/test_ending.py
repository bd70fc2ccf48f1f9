from itertools import product

from stickyproxy.core.ending import TABLE, Event, Stage


def test_no_stage_leads_back() -> None:
    order = list(Stage)
    assert all(order.index(following) > order.index(stage) for (stage, _), (following, _) in TABLE.items())


def test_from_every_stage_the_end_can_be_ordered() -> None:
    assert {stage for stage, event in TABLE if event is Event.CLOSE} == set(Stage) - {Stage.CLOSED}


def test_what_is_told_twice_changes_nothing_the_second_time() -> None:
    for stage, event in product(Stage, Event):
        following, _ = TABLE.get((stage, event), (stage, None))
        assert (following, event) not in TABLE
