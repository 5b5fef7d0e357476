from __future__ import annotations

import functools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientad_stream.core import dialogue, wire
from efficientad_stream.core.catchup import CatchUp, Refused
from efficientad_stream.core.dialogue import Ack, End, Error, Gap, Get, Hello, Welcome
from efficientad_stream.core.messages import (
    HEARTBEAT,
    Decision,
    Header,
    Heartbeat,
    HeartbeatBody,
    WireError,
)
from efficientad_stream.core.sequencer import MAX_WAITING, Lost, NewEpoch, Sequencer, Start
from efficientad_stream.core.types import FrameMeta, Inspection, Verdict

EPOCH = 100


@functools.cache
def decision(seq: int, epoch: int = EPOCH) -> Decision:
    return wire.decode_decision(*message(seq, epoch))


def message(seq: int, epoch: int = EPOCH) -> tuple[bytes, bytes]:
    what = Inspection(FrameMeta(seq, 0, 0), Verdict.FAIL, None, None, None, seq=seq)
    return wire.encode_decision(what, "st1", epoch, 0, None)


def heartbeat(head: int, epoch: int = EPOCH) -> Heartbeat:
    body = HeartbeatBody(station="st1", state="running", head=head)
    return Heartbeat(Header(HEARTBEAT, Verdict.NONE, head, epoch), body)


def welcome(head: int, epoch: int = EPOCH, oldest: int = 1, **more: Any) -> Welcome:
    return Welcome(station="st1", epoch=epoch, head=head, oldest=oldest, state="running", **more)


def seqs(events: list[Any]) -> list[int]:
    return [event.header.seq for event in events]


@given(
    head=st.integers(0, 30),
    later=st.integers(0, 30),
    start=st.integers(1, 40),
    live=st.lists(st.integers(1, 60), max_size=60),
    seed=st.integers(0, 1000),
)
def test_every_decision_comes_out_once_and_in_order(
    *, head: int, later: int, start: int, live: list[int], seed: int
) -> None:
    """Live ones in any order, some never and some twice; the rest is fetched, some of it lost."""
    chance = random.Random(seed)
    sequencer, out = Sequencer(start), list[Any]()
    total = head + later
    arriving = [decision(seq) for seq in live if seq <= total]
    early = chance.randint(0, len(arriving))
    for one in arriving[:early]:
        out += sequencer.offer(one)
    assert out == []
    out += sequencer.welcome(welcome(head))
    for one in arriving[early:]:
        out += sequencer.offer(one)
    sequencer.head(EPOCH, total)
    while (want := sequencer.missing()) is not None:
        for seq in range(want.first, want.last + 1):
            if chance.random() < 0.6:
                out += sequencer.offer(decision(seq))
    assert seqs(out) == list(range(start, total + 1))
    assert sequencer.behind == 0


@pytest.mark.parametrize(
    ("start", "first"),
    [(Start.NEW, 21), (Start.RUN, 11), (Start.ALL, 5), (7, 7), (0, 1), (30, 30)],
)
def test_where_a_consumer_begins(start: Start | int, first: int) -> None:
    sequencer = Sequencer(start)
    sequencer.welcome(welcome(20, oldest=5, run_first=11))
    assert sequencer.next == first


@pytest.mark.parametrize(("started_at", "first"), [(999, 21), (1000, 11)])
def test_of_a_daemon_that_starts_after_us_everything_is_new(started_at: int, first: int) -> None:
    sequencer = Sequencer(Start.NEW, since_us=1000)
    sequencer.welcome(welcome(20, run_first=11, started_at=started_at))
    assert sequencer.next == first


def test_what_came_live_before_the_welcome_belongs_to_the_new() -> None:
    sequencer = Sequencer(Start.NEW)
    assert sequencer.offer(decision(19)) == []
    assert seqs(sequencer.welcome(welcome(20))) == [19]
    assert sequencer.missing() == Get(first=20, last=20)


def test_a_get_asks_for_the_first_hole_only_and_at_most_500() -> None:
    sequencer = Sequencer(Start.ALL)
    sequencer.welcome(welcome(2000))
    assert sequencer.missing() == Get(first=1, last=500)
    sequencer.offer(decision(4))
    assert sequencer.missing() == Get(first=1, last=3)


def test_a_gap_is_told_and_what_was_held_still_comes_out() -> None:
    sequencer = Sequencer(3)
    sequencer.welcome(welcome(20))
    sequencer.offer(decision(6))
    sequencer.offer(decision(10))
    assert sequencer.gap(9) == [Lost(EPOCH, 3, 5), decision(6), Lost(EPOCH, 7, 8)]
    assert seqs(list(sequencer.offer(decision(9)))) == [9, 10]
    assert sequencer.gap(9) == []


def test_a_new_epoch_begins_again_after_what_was_held_of_the_old_one() -> None:
    sequencer = Sequencer(Start.ALL)
    sequencer.welcome(welcome(5))
    sequencer.offer(decision(1))
    sequencer.offer(decision(3))
    assert not sequencer.head(EPOCH + 1, 2)
    assert sequencer.offer(decision(2, EPOCH + 1)) == []
    assert sequencer.stale
    assert sequencer.welcome(welcome(2, EPOCH + 1)) == [
        Lost(EPOCH, 2, 2),
        decision(3),
        Lost(EPOCH, 4, 5),
        NewEpoch(EPOCH + 1),
    ]
    assert sequencer.offer(decision(2)) == []
    assert sequencer.duplicates == 1
    assert sequencer.offer(decision(1, EPOCH + 1)) == [
        decision(1, EPOCH + 1),
        decision(2, EPOCH + 1),
    ]


def test_what_waits_is_bounded_and_fetched_again() -> None:
    sequencer = Sequencer(1)
    sequencer.welcome(welcome(0))
    held = decision(2)
    for seq in range(2, MAX_WAITING + 10):
        sequencer.offer(Decision(held.header._replace(seq=seq), held.body))
    out = sequencer.offer(decision(1))
    assert len(out) == MAX_WAITING + 1
    assert sequencer.missing() == Get(first=MAX_WAITING + 2, last=MAX_WAITING + 9)


def test_the_dialogue_of_a_consumer() -> None:
    catchup = CatchUp("gate", Start.ALL, "stored")
    assert catchup.due(0.0) == [Hello(consumer="gate", last=0)]
    assert catchup.due(0.1) == []
    assert catchup.due(0.6) == [Hello(consumer="gate", last=0)]
    assert catchup.reply(welcome(2)) == []
    assert catchup.due(1.0) == [Get(first=1, last=2), Ack(upto=0, stage="stored")]
    out = catchup.reply(dialogue.Record(*message(1)))
    assert seqs(out) == [1]
    assert catchup.due(1.1) == []
    catchup.delivered()
    assert catchup.due(1.2) == [Ack(upto=1, stage="stored")]
    assert seqs(catchup.reply(dialogue.Record(*message(2)))) == [2]
    assert catchup.reply(End(last=2)) == []
    catchup.beat(heartbeat(4))
    assert catchup.missing == 2
    assert catchup.due(1.21) == [Get(first=3, last=4)]
    assert catchup.due(2.0) == []
    assert catchup.due(2.21) == [Get(first=3, last=4), Ack(upto=1, stage="stored")]
    assert catchup.reply(Gap(oldest=5)) == [Lost(EPOCH, 3, 4)]
    catchup.delivered()
    assert catchup.farewell() == [Ack(upto=4, stage="stored")]


def test_an_end_that_brings_nothing_is_asked_again_but_not_at_once() -> None:
    catchup = CatchUp("gate", Start.ALL, "seen")
    catchup.due(0.0)
    catchup.reply(welcome(2))
    catchup.due(0.1)
    catchup.reply(End(last=2))
    assert catchup.due(0.2) == []
    assert Get(first=1, last=2) in catchup.due(1.2)


def test_after_a_new_epoch_or_an_absence_it_says_hello() -> None:
    catchup = CatchUp("gate", Start.ALL, "seen")
    catchup.due(0.0)
    catchup.reply(welcome(0))
    catchup.due(0.1)
    catchup.beat(heartbeat(1, EPOCH + 1))
    assert catchup.due(1.0) == [Hello(consumer="gate", last=0)]
    assert catchup.reply(welcome(1, EPOCH + 1)) == [NewEpoch(EPOCH + 1)]
    assert Get(first=1, last=1) in catchup.due(1.1)
    catchup.reconnect()
    assert catchup.due(2.0) == [Hello(consumer="gate", last=0)]


def test_refusals_and_malformed_records_are_not_swallowed() -> None:
    catchup = CatchUp("gate", Start.ALL, "seen")
    assert catchup.reply(Error(reason="no")) == [Refused("no")]
    with pytest.raises(WireError):
        catchup.reply(dialogue.Record(b"", b""))
