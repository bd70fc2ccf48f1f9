"""Each rule finds its fault, names the place, and says nothing of the sound twin."""

import pytest

from stickyproxy.tools.doctor.rules import RULES

from . import cases_pods, cases_ways
from .case import Case
from .setups import change, findings, said, setup

CASES = [*cases_ways.CASES, *cases_pods.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_names_the_fault_and_nothing_else(case: Case) -> None:
    found = findings(change(setup(case.base), case.bad))
    assert {f.rule.id for f in found} == {case.rule} | case.also, said(found)
    mine = [f for f in found if f.rule.id == case.rule]
    assert [str(f.fault.where) for f in mine] == [case.where], said(mine)
    assert case.field in mine[0].fault.field, said(mine)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_its_sound_twin_is_left_alone(case: Case) -> None:
    found = findings(change(setup(case.base), case.twin))
    assert not found, said(found)


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == {rule.id for rule in RULES}


def test_no_two_rules_have_one_id() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
