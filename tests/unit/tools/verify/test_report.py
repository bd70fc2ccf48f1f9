import json
from dataclasses import replace

from stickyproxy.tools.verify.report import STEPS, in_json, in_words, table
from stickyproxy.tools.verify.rules import judge
from stickyproxy.tools.verify.seen import Seen, Step

from .test_rules import MADE_BY, sticky


def test_the_text_says_verdict_proof_findings_and_times() -> None:
    seen = replace(MADE_BY["idle-cut"], pages_opened=9, steps=[Step("reconnect", (0.01, 0.03, 0.02))])
    text = in_words(seen, judge(seen), 12.34)
    assert text.splitlines()[:5] == [
        "http://app.test/: NiceGUI 3.18.0; 8 visitors, 9 pages opened and closed again; 12.3 s",
        "",
        "broken: a silent WebSocket is cut after a fixed time, shorter than the app may be silent",
        "  24 of 24 sockets were accepted: 8 of new pages and 16 after a cut",
        "  by chance, without affinity and with two replicas: 1 in 340,000",
    ]
    assert "fault   idle-cut  a silent WebSocket is cut after a fixed time, shorter than the app may be silent" in text
    assert "idle-cut (docs/verify.md#idle-cut)\n  seen: 2 of 2 silent WebSockets ended after 5.0 s" in text
    assert "reconnect      3         20          30" in text


def test_lines_of_evidence_and_fixes_keep_to_the_width() -> None:
    for id, seen in MADE_BY.items():
        text = in_words(seen, judge(seen), 1.0, 60)
        long = [
            line for line in text.splitlines() if line.startswith("        ") and len(line) > 60 and " " in line.strip()
        ]
        assert long == [], id


def test_a_page_that_could_not_be_closed_is_said() -> None:
    seen = sticky(pages_opened=9, pages_left=2)
    assert "9 pages opened, 2 of them left to the app to forget" in in_words(seen, judge(seen), 1.0)


def test_the_json_holds_the_same_for_every_finding() -> None:
    for id, seen in MADE_BY.items():
        findings = judge(seen)
        said = json.loads(in_json(seen, findings, 1.0))
        assert [f["id"] for f in said["findings"]] == [f.id for f in findings]
        assert id in {f["id"] for f in said["findings"]}
        assert said["verdict"] == {0: "sticky", 1: "faulty", 2: "unknown"}[said["exit_code"]]


def test_nothing_seen_can_be_said_too() -> None:
    seen = Seen("http://app.test/", 8, problem="no answer in time")
    assert json.loads(in_json(seen, judge(seen), 0.1))["chance_of_luck"] is None
    assert in_words(seen, judge(seen), 0.1).splitlines()[2] == "could not tell: the page could not be loaded"


def test_a_table_has_its_numbers_at_the_right() -> None:
    assert table([("a", "n"), ("long", "1"), ("b", "100")], right=(1,)) == [
        "a       n", "----  ---", "long    1", "b     100",
    ]  # fmt: skip


def test_every_step_that_is_shown_has_a_name_of_its_own() -> None:
    assert len(set(STEPS)) == len(STEPS)
