from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.core.errors import FatalError
from efficientad_stream.core.ledger import Ledger
from efficientad_stream.core.types import FrameMeta, Inspection, Reason, Scores, Verdict

US = 1000


def frame(n: int, captured_us: int = 0) -> FrameMeta:
    return FrameMeta(n, captured_us * US, 0)


def scored(meta: FrameMeta, verdict: Verdict = Verdict.PASS) -> Inspection:
    return Inspection(meta, verdict, None, 1.0, None, Scores(0.5, 0.5, 0.5))


def settle(ledger: Ledger, inspection: Inspection, now_ns: int = 0) -> Inspection:
    """Settled, and recorded."""
    final = ledger.settle(inspection, now_ns)
    ledger.recorded(final)
    return final


def test_numbers_go_on_from_the_head() -> None:
    ledger, frames = Ledger(41, 0), [frame(n) for n in range(3)]
    ledger.admit(frames)
    assert ledger.open == tuple(frames)
    assert [settle(ledger, scored(f)).seq for f in frames] == [42, 43, 44]
    assert ledger.head == 44
    assert ledger.open == ()


def test_what_is_not_recorded_uses_up_no_number() -> None:
    ledger, frames = Ledger(41, 0), [frame(1), frame(2)]
    ledger.admit(frames)
    first = ledger.settle(scored(frames[0]), 0)
    assert (first.seq, ledger.head, ledger.open) == (42, 41, tuple(frames))
    again = ledger.settle(scored(frames[0], Verdict.FAIL), 0)
    assert again.seq == 42
    ledger.recorded(again)
    assert (ledger.head, ledger.open) == (42, (frames[1],))
    with pytest.raises(FatalError, match="frame 1 out of order"):
        ledger.recorded(first)
    with pytest.raises(FatalError, match="verdict 0 cannot follow 42"):
        ledger.recorded(scored(frames[1]))


def test_without_a_deadline_nothing_is_late() -> None:
    ledger, one = Ledger(0, 0), frame(1)
    ledger.admit([one])
    assert ledger.left_us(one, 10**18) is None
    assert ledger.settle(scored(one), 10**18).verdict is Verdict.PASS


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.FAIL])
def test_behind_the_deadline_a_score_does_not_count(verdict: Verdict) -> None:
    ledger, one = Ledger(0, 500), frame(1, captured_us=100)
    ledger.admit([one])
    assert ledger.left_us(one, 599 * US) == 1
    late = ledger.settle(scored(one, verdict), 600 * US)
    assert (late.verdict, late.reason, late.seq) == (Verdict.INVALID, Reason.LATE, 1)
    assert late.latency_us == 500
    assert late.scores is not None  # kept as an observation


def test_an_earlier_reason_stays() -> None:
    ledger, one = Ledger(0, 500), frame(1)
    ledger.admit([one])
    lost = replace(scored(one), verdict=Verdict.INVALID, reason=Reason.OVERRUN, scores=None)
    assert ledger.settle(lost, 10**12).reason is Reason.OVERRUN


def test_a_verdict_on_a_frame_that_is_not_next_is_a_defect() -> None:
    ledger, frames = Ledger(0, 0), [frame(1), frame(2)]
    with pytest.raises(FatalError, match="frame 1 out of order"):
        ledger.settle(scored(frames[0]), 0)
    ledger.admit(frames)
    with pytest.raises(FatalError, match="frame 2 out of order"):
        ledger.settle(scored(frames[1]), 0)
    settle(ledger, scored(frames[0]))
    with pytest.raises(FatalError, match="frame 1 out of order"):
        ledger.settle(scored(frames[0]), 0)  # no second verdict on one frame


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 1000), st.integers(0, 2000))
def test_never_pass_at_or_behind_the_deadline(ages: list[int], deadline: int, now: int) -> None:
    ledger = Ledger(0, deadline)
    frames = [frame(n, now - age) for n, age in enumerate(ages)]
    ledger.admit(frames)
    for meta, age in zip(frames, ages, strict=True):
        final = settle(ledger, scored(meta), now * US)
        assert (final.verdict is Verdict.PASS) == (age < deadline)
    assert ledger.head == len(ages)


def answer_overdue(ledger: Ledger, now_ns: int) -> list[Inspection]:
    """As the fan-out does: INVALID(late) for what is being inspected and is overdue."""
    said = []
    while (meta := ledger.overdue(now_ns)) is not None:
        late = Inspection(meta, Verdict.INVALID, Reason.LATE, None, None)
        final = ledger.settle(late, now_ns)
        ledger.recorded(final, awaited=True)
        said.append(final)
    return said


def test_at_the_deadline_a_frame_is_answered_once() -> None:
    ledger, frames = Ledger(0, 500), [frame(1, 0), frame(2, 100)]
    ledger.admit(frames)
    assert ledger.overdue(499 * US) is None
    assert [i.meta for i in answer_overdue(ledger, 500 * US)] == [frames[0]]
    assert ledger.open == (frames[1],)
    assert not ledger.answered_before(scored(frames[1]))
    assert ledger.answered_before(scored(frames[0]))
    assert not ledger.answered_before(scored(frames[0]))
    assert settle(ledger, scored(frames[1]), 599 * US).verdict is Verdict.PASS


def test_without_a_deadline_nothing_is_overdue() -> None:
    ledger = Ledger(0, 0)
    ledger.admit([frame(1)])
    assert ledger.overdue(10**18) is None
    assert ledger.due_if_captured_by(10**18) is None


@given(st.lists(st.sampled_from(["frame", "score", "look", "wait"]), max_size=80), st.data())
def test_for_every_interleaving_each_frame_has_one_verdict_by_its_deadline(
    events: list[str], data: st.DataObject
) -> None:
    """Frames come, are scored in order, and a keeper looks, in any order and with any pauses."""
    ledger, deadline, now = Ledger(0, 50), 50, 0
    unscored: list[FrameMeta] = []
    captured: dict[int, int] = {}
    said: list[Inspection] = []
    for event in [*events, "wait", "look"]:
        if event == "wait":
            now += data.draw(st.integers(1, 40)) if event in events else deadline
        elif event == "frame":
            meta = frame(len(captured) + 1, now)
            captured[meta.frame_id] = now
            ledger.admit([meta])
            unscored.append(meta)
        elif event == "look":
            said += answer_overdue(ledger, now * US)
        elif unscored:
            inspection = scored(unscored.pop(0))
            if not ledger.answered_before(inspection):
                said.append(settle(ledger, inspection, now * US))
                in_time = now < captured[inspection.meta.frame_id] + deadline
                assert (said[-1].verdict is Verdict.PASS) == in_time
    now += deadline
    said += answer_overdue(ledger, now * US)
    assert [i.seq for i in said] == list(range(1, len(captured) + 1))
    assert [i.meta.frame_id for i in said] == sorted(captured)
    assert ledger.open == ()
    assert ledger.admitted == len(captured)
    for meta in unscored:
        assert ledger.answered_before(scored(meta))
