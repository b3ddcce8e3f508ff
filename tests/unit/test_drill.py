"""Drills: their plans and reports, and the journal as an onlooker reads it."""

from __future__ import annotations

import pytest

from mpims.core.chunks import Result
from mpims.core.ranges import RangeSet
from mpims.drill.plan import (
    PARSERS,
    Fault,
    FaultKind,
    Moment,
    check_plan,
    default_plan,
    draw_plan,
    parse_crash,
    parse_hang,
    parse_kill,
    parse_slow,
)
from mpims.drill.report import DrillOutcome, Ending, Injection, injection_line, outcome_dict, outcome_lines
from mpims.drill.watched import WatchedRun
from mpims.errors import UsageError
from mpims.storage.checkpoint import Checkpoint
from mpims.storage.commits import Failure
from mpims.storage.onlooker import Onlooker

# ------------------------------------------------------------------------------- plan


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (parse_kill("2@40%"), Fault(FaultKind.KILL, 2, Moment(0.4))),
        (parse_kill("0@0%"), Fault(FaultKind.KILL, 0, Moment(0.0))),
        (parse_kill("11@1.5s"), Fault(FaultKind.KILL, 11, Moment(after_s=1.5))),
        (parse_hang("1@50%"), Fault(FaultKind.HANG, 1, Moment(0.5))),
        (parse_hang("1@99.5%:2.5"), Fault(FaultKind.HANG, 1, Moment(0.995), 2.5)),
        (parse_hang("1@3s:2"), Fault(FaultKind.HANG, 1, Moment(after_s=3.0), 2.0)),
        (parse_slow("3:2.5x"), Fault(FaultKind.SLOW, 3, factor=2.5)),
        (parse_slow("3:2"), Fault(FaultKind.SLOW, 3, factor=2.0)),
        (parse_crash("@60%"), Fault(FaultKind.CRASH, moment=Moment(0.6))),
        (parse_crash("@2s"), Fault(FaultKind.CRASH, moment=Moment(after_s=2.0))),
    ],
)
def test_options_and_back(found, wanted):
    assert found == wanted
    option, _, text = found.option.partition(" ")
    assert PARSERS[FaultKind(option.removeprefix("--"))](text) == found


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_kill, "40%", "--kill wants RANK@40%"),
        (parse_kill, "-1@40%", "--kill wants RANK@40%"),
        (parse_kill, "1@40", "--kill wants RANK@40%"),
        (parse_kill, "1@101%", "^--kill 1@101%: there are no 101% of the items, at most 100%$"),
        (parse_hang, "1@101%:2", "^--hang 1@101%:2: there are no 101% of the items"),
        (parse_crash, "@101%", "^--crash @101%: there are no 101% of the items"),
        (parse_hang, "1@40%:", "--hang wants"),
        (parse_slow, "1@3x", "--slow wants RANK:3x"),
        (parse_slow, "1:0.5x", "at least 1"),
        (parse_crash, "60%", "--crash wants @60%"),
        (parse_crash, "1@60%", "--crash wants @60%"),
    ],
)
def test_wrong_options(parse, text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_moments():
    assert not Moment(0.4).has_come(0.39, 1000.0)
    assert Moment(0.4).has_come(0.4, 0.0)
    assert Moment(0.0).has_come(0.0, 0.0)
    assert not Moment(after_s=1.5).has_come(1.0, 1.4)
    assert Moment(after_s=1.5).has_come(0.0, 1.5)


def test_plans_that_cannot_be_carried_out():
    with pytest.raises(UsageError, match="no rank 4 among 4"):
        check_plan([parse_kill("4@40%")], 4, survives_deaths=True)
    for fault in (parse_kill("1@40%"), parse_hang("1@40%")):
        with pytest.raises(UsageError, match="no ULFM"):
            check_plan([fault], 4, survives_deaths=False)
    check_plan([parse_crash("@40%"), parse_slow("1:2")], 4, survives_deaths=False)


def test_a_rank_is_slow_in_one_way():
    with pytest.raises(UsageError, match=r"--slow 1:5x: it is given twice for that rank"):
        check_plan([parse_slow("1:2x"), parse_kill("1@10%"), parse_slow("1:5x")], 3, survives_deaths=True)
    check_plan([parse_slow("1:2x"), parse_slow("2:2x")], 3, survives_deaths=True)


def test_the_default_plan_leaves_a_rank():
    assert [fault.option for fault in default_plan(3)] == ["--kill 2@40%", "--kill 0@60%"]
    assert [fault.option for fault in default_plan(2)] == ["--kill 1@40%"]


def test_drawn_plans_can_be_survived_and_repeated():
    seen = set()
    for seed in range(2000):
        n_ranks = 2 + seed % 5
        plan = draw_plan(seed, n_ranks, for_ever=seed % 2 == 0)
        assert plan == draw_plan(seed, n_ranks, for_ever=seed % 2 == 0)
        assert plan, seed
        victims = [fault.rank for fault in plan if fault.kind is not FaultKind.CRASH]
        assert len(victims) == len(set(victims)) < n_ranks, seed
        check_plan(plan, n_ranks, survives_deaths=True)
        shares = [fault.moment.share for fault in plan]
        assert shares == sorted(shares), seed
        if seed % 2:
            assert all(fault.hang_s for fault in plan if fault.kind is FaultKind.HANG), seed
        for fault in plan:
            option, _, text = fault.option.partition(" ")
            assert PARSERS[FaultKind(option.removeprefix("--"))](text).option == fault.option
        seen |= {(fault.kind, fault.rank == 0, fault.hang_s is None) for fault in plan}
    assert len(seen) == 7  # kill, hang for ever, hang for a while: of rank 0 and of others; crash


# ----------------------------------------------------------------------------- report


def outcome(*injections, status=0, error="", **changes):
    summary = {"status": "done", "n_items": 1000, "n_done": 1000, "result_digest": "ab"}
    after = {**summary, "n_duplicates": 12, "n_lost": 1, "n_masters": 2, "n_resumed": 1, **changes}
    disturbed = Ending(status, 5.25, {} if error else after, error)
    return DrillOutcome("x.py", 4, Ending(0, 4.0, summary), disturbed, injections)


DONE = Injection(parse_kill("3@40%"), 1.5, 0.425, host="n2")
MISSED = Injection(parse_hang("2@99%:2"), missed="too late: the run was over")


def test_a_survived_drill():
    good = outcome(DONE)
    assert not good.trouble
    assert outcome_lines(good) == [
        "undisturbed  4.0 s on 4 ranks",
        "  1.50 s       42% done  rank 3 (n2) killed",
        "disturbed    5.2 s: 1.2 s lost",
        "items        1,000 of 1,000, 12 computed twice",
        "lost         1 worker, 2 masters; resumed 1 time",
        "bits         the same",
        "survived",
    ]
    said = outcome_dict(good)
    assert said["survived"] is True
    assert said["options"] == "--kill 3@40%"
    assert (said["n_items_lost"], said["time_lost_s"], said["n_masters"]) == (0, 1.25, 2)


@pytest.mark.parametrize(
    ("bad", "message", "is_damage"),
    [
        (outcome(DONE, result_digest="cd"), "the result has other bits", True),
        (outcome(DONE, n_done=990), "10 items were lost", True),
        (outcome(DONE, n_done=999), "1 item was lost", True),
        (outcome(DONE, status=1, error="the run ended with status 1: no"), "status 1: no", True),
        (outcome(DONE, MISSED), "1 of 2 faults could not be injected", False),
    ],
)
def test_a_drill_that_was_not_survived(bad, message, is_damage):
    assert message in bad.trouble
    assert bool(bad.damage) is is_damage
    assert outcome_lines(bad)[-1] == f"NOT survived: {bad.trouble}"
    assert outcome_dict(bad)["survived"] is False


@pytest.mark.parametrize(("digest", "said"), [("cd", "NOT the same"), (None, "none: it left no result")])
def test_a_run_without_a_result_has_no_other_bits(digest, said):
    (bits,) = [
        line for line in outcome_lines(outcome(DONE, result_digest=digest)) if line.startswith("bits")
    ]
    assert bits.split(maxsplit=1)[1] == said


def test_lines_are_in_the_order_of_time_and_the_missed_ones_last():
    earlier = Injection(parse_slow("1:3x"), 0.5, 0.0)
    lines = outcome_lines(outcome(MISSED, DONE, earlier))
    assert [line for line in lines if line.startswith("  ")] == [
        "  0.50 s        0% done  rank 1 slowed down 3 times",
        "  1.50 s       42% done  rank 3 (n2) killed",
        "  --hang 2@99%:2: too late: the run was over",
    ]


def test_what_was_done_is_told():
    assert injection_line(Injection(parse_crash("@60%"), 12.0, 0.6)).endswith("60% done  all ranks killed")
    assert injection_line(Injection(parse_hang("1@5%:2"), 12.0, 0.6)).endswith("rank 1 stopped for 2 s")


# --------------------------------------------------------------------------- onlooker


class NoResults:
    """Results that need no place."""

    n_given = n_written = 0

    def finish(self):
        pass

    def keeps(self, payload):
        return True

    def commit(self, head, payload, ranges):
        pass

    def sync(self):
        pass


def test_an_onlooker_sees_what_is_done_while_it_is_written(tmp_path):
    onlooker = Onlooker(tmp_path)
    assert onlooker.n_done() == 0  # nothing is there yet
    checkpoint = Checkpoint.create(tmp_path, "run", NoResults(), durability_s=None)
    assert onlooker.n_done() == 0
    done = RangeSet()

    def commit(*ranges, failures=()):
        head = Result(0, ranges[0][0], ranges[-1][1])
        checkpoint.commit(head, None, None, ranges, failures)
        checkpoint.say()
        for span in ranges:
            done.add(*span)

    commit((0, 3), (7, 9))
    assert onlooker.n_done() == done.size == 5
    assert onlooker.n_done() == 5
    checkpoint.assigned([(20, 30)])
    checkpoint.say()
    commit((3, 7))
    commit((9, 10), failures=[Failure(9, 3, 1, "host", "reason", "")])
    assert onlooker.n_done() == done.size == 10


def test_an_onlooker_leaves_what_is_not_whole_for_later(tmp_path):
    checkpoint = Checkpoint.create(tmp_path, "run", NoResults(), durability_s=None)
    head = Result(0, 0, 3)
    checkpoint.commit(head, None, None, [(0, 3)])
    checkpoint.say()
    before = (tmp_path / "journal").read_bytes()
    checkpoint.commit(head, None, None, [(3, 50)])
    checkpoint.say()
    after = (tmp_path / "journal").read_bytes()
    checkpoint.abandon()
    for n_bytes in range(len(before), len(after)):
        (tmp_path / "journal").write_bytes(after[:n_bytes])
        onlooker = Onlooker(tmp_path)
        assert onlooker.n_done() == 3
        with (tmp_path / "journal").open("ab") as file:
            file.write(after[n_bytes:])
        assert onlooker.n_done() == 50


def test_an_onlooker_sees_a_journal_that_is_written_anew(tmp_path):
    checkpoint = Checkpoint.create(tmp_path, "run", NoResults(), durability_s=None)
    head = Result(0, 0, 3)
    onlooker = Onlooker(tmp_path)
    for item in range(100):
        checkpoint.commit(head, None, None, [(item, item + 1)])
        checkpoint.say()
    assert onlooker.n_done() == 100
    other = tmp_path / "other"
    other.mkdir()
    anew = Checkpoint.create(other, "run", NoResults(), durability_s=None)
    anew.commit(head, None, None, [(0, 101)])
    anew.say()
    (other / "journal").rename(tmp_path / "journal")
    assert onlooker.n_done() == 101


def test_a_run_that_ended_before_it_was_killed_is_judged_by_the_resumed_one(tmp_path):
    for _ in range(2):  # the second is the first, resumed
        with WatchedRun(["--version"], tmp_path, 1, tmp_path / "run.out", limit_s=60.0) as run:
            run.wait()
    assert run.output.read_text().count("mpims") == 1
