from __future__ import annotations

import itertools
import select
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq
from station_kit import Line, until

from efficientad_stream import subscriber as module
from efficientad_stream.core.endpoint import Endpoints, of_station
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.messages import Decision, Heartbeat
from efficientad_stream.core.sequencer import Lost, NewEpoch, Start
from efficientad_stream.sinks import publisher
from efficientad_stream.subscriber import Back, Event, Silent, Subscriber


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "journal")
    yield line
    line.close()


class Reader:
    """A subscriber and all that has come out of it."""

    def __init__(self, where: Endpoints, **options: Any) -> None:
        self.subscriber = Subscriber(where, **options)
        self.events: list[Event] = []

    def until(self, condition: Callable[[], object]) -> None:
        def step() -> object:
            self.events += self.subscriber.poll(0.02)
            return condition()

        until(step)

    def seqs(self) -> list[int]:
        return [e.header.seq for e in self.events if isinstance(e, Decision)]

    def of(self, kind: type[Any]) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]

    def close(self) -> None:
        self.subscriber.close()


def test_a_late_joiner_catches_up_and_goes_on_live(line: Line) -> None:
    line.decide(1200)
    with closing(Reader(line.where, start=Start.ALL)) as reader:
        reader.until(lambda: len(reader.seqs()) >= 1200)
        line.decide(50)
        reader.until(lambda: len(reader.seqs()) >= 1250)
        assert reader.seqs() == list(range(1, 1251))
        assert reader.subscriber.stats()["fetched"] >= 1200


@pytest.mark.parametrize(("start", "first"), [(Start.NEW, 11), (Start.RUN, 6), (8, 8)])
def test_where_to_begin(tmp_path: Path, start: Start | int, first: int) -> None:
    line = Line(tmp_path)
    line.decide(5)
    line.close()
    line = Line(tmp_path)
    line.decide(5)
    with closing(Reader(line.where, start=start)) as reader:
        reader.until(lambda: reader.of(Heartbeat) and line.control.stats()["requests"])
        line.decide(5)
        reader.until(lambda: 15 in reader.seqs())
        assert reader.seqs() == list(range(first, 16))
    line.close()


def test_a_lost_message_is_seen_by_the_next_one_and_a_lost_last_one_by_the_heartbeat(
    line: Line,
) -> None:
    with closing(Reader(line.where, start=Start.ALL)) as reader:
        line.decide(3)
        reader.until(lambda: len(reader.seqs()) == 3)
        line.decide(2, send=False)
        line.decide(1)
        reader.until(lambda: len(reader.seqs()) == 6)
        line.decide(4, send=False)
        reader.until(lambda: len(reader.seqs()) == 10)
        assert reader.seqs() == list(range(1, 11))


def test_a_killed_station_goes_on_where_it_stopped(tmp_path: Path) -> None:
    line = Line(tmp_path)
    where = line.where
    with closing(Reader(where, start=Start.ALL)) as reader:
        line.decide(20)
        reader.until(lambda: len(reader.seqs()) == 20 and reader.of(Back))
        line.decide(5, send=False)
        line.vanish()
        reader.until(lambda: reader.of(Silent))
        line = Line(tmp_path, where)
        assert line.journal.head == 25
        line.decide(5)
        reader.until(lambda: len(reader.seqs()) >= 30)
        assert reader.seqs() == list(range(1, 31))
        assert len(reader.of(Back)) == 2
        assert not reader.of(NewEpoch)
    line.close()


class Wire:
    """A relay in front of an endpoint that can go dead as a machine does that loses its power."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("tcp://").split(":")
        self.target = (host, int(port))
        self.dead: set[socket.socket] = set()
        self.pairs: dict[socket.socket, socket.socket] = {}
        self.door = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self.door.getsockname()[1]}"
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def cut(self) -> None:
        """All connections stay open, and carry nothing any more."""
        self.dead |= set(self.pairs)

    def run(self) -> None:
        while not self.stop.is_set():
            alive = [s for s in self.pairs if s not in self.dead]
            for ready in select.select([self.door, *alive], [], [], 0.02)[0]:
                if ready is self.door:
                    ours, theirs = self.door.accept()[0], socket.create_connection(self.target)
                    self.pairs |= {ours: theirs, theirs: ours}
                else:
                    self.pass_on(ready)

    def pass_on(self, ready: socket.socket) -> None:
        """What has come on one side to the other; a side that was closed or reset is done with."""
        try:
            data = ready.recv(65536)
            self.pairs[ready].sendall(data)
        except OSError:
            data = b""
        if not data:
            self.dead.add(ready)

    def close(self) -> None:
        self.stop.set()
        self.thread.join(10)
        for one in (self.door, *self.pairs):
            one.close()


def test_a_dead_connection_that_nobody_closed_is_replaced(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_MS", 100)
    monkeypatch.setattr(module, "DEAD_MS", 300)
    with closing(Wire(line.where.decisions)) as wire, closing(Wire(line.where.control)) as control:
        where = Endpoints(wire.endpoint, None, control.endpoint)
        with closing(Reader(where, start=Start.ALL)) as reader:
            line.decide(5)
            reader.until(lambda: len(reader.seqs()) == 5 and reader.of(Back))
            wire.cut()
            control.cut()
            line.decide(5)
            reader.until(lambda: len(reader.seqs()) == 10)
            assert reader.seqs() == list(range(1, 11))


def test_a_new_journal_is_a_new_epoch(tmp_path: Path) -> None:
    line = Line(tmp_path / "j")
    where = line.where
    with closing(Reader(where, start=Start.ALL)) as reader:
        line.decide(5)
        reader.until(lambda: len(reader.seqs()) == 5)
        line.close()
        shutil.rmtree(tmp_path / "j")
        line = Line(tmp_path / "j", where)
        line.decide(3)
        reader.until(lambda: len(reader.seqs()) == 8)
        assert reader.seqs() == [1, 2, 3, 4, 5, 1, 2, 3]
        assert reader.of(NewEpoch) == [NewEpoch(line.journal.epoch)]
    line.close()


def test_a_consumer_may_be_there_before_the_station(tmp_path: Path) -> None:
    line = Line(tmp_path)
    where = line.where
    line.close()
    with closing(Reader(where, start=Start.RUN)) as reader:
        reader.events += reader.subscriber.poll(0.05)
        line = Line(tmp_path, where)
        line.decide(10)
        reader.until(lambda: len(reader.seqs()) == 10)
    line.close()


def test_a_run_that_ends_at_once_still_arrives_whole(tmp_path: Path) -> None:
    line = Line(tmp_path)
    with closing(Reader(line.where, start=Start.ALL)) as reader:
        reader.until(lambda: line.control.stats()["requests"])
        line.decide(2000)
        line.doing = "draining"
        reader.until(lambda: line.control.wait_for_acks(2000, 0))
        line.close()
        reader.until(lambda: reader.subscriber.finished)
        assert reader.seqs() == list(range(1, 2001))
        assert not reader.of(Silent)


def test_a_reader_that_was_too_slow_gets_the_rest_from_the_journal(
    line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(publisher, "SEND_HWM", 100)
    monkeypatch.setattr(module, "RECEIVE_HWM", 100)
    slow = Line(tmp_path / "slow", segment_bytes=1 << 20)
    with closing(Reader(slow.where, start=Start.ALL)) as reader:
        reader.until(lambda: reader.of(Heartbeat))
        slow.decide(15_000)
        reader.until(lambda: len(reader.seqs()) == 15_000)
        assert reader.seqs() == list(range(1, 15_001))
        assert reader.subscriber.stats()["fetched"] > 0
    slow.close()


def test_what_is_gone_for_good_is_told(tmp_path: Path) -> None:
    line = Line(tmp_path, segment_bytes=4096, keep_segments=2)
    line.decide(100)
    with closing(Reader(line.where, start=3)) as reader:
        reader.until(lambda: 100 in reader.seqs())
        (lost,) = reader.of(Lost)
        assert lost == Lost(line.journal.epoch, 3, line.journal.oldest - 1)
        assert reader.seqs() == list(range(line.journal.oldest, 101))
    line.close()


def test_garbage_among_the_decisions_is_counted_and_does_no_harm(line: Line) -> None:
    with closing(Reader(line.where, start=Start.ALL)) as reader:
        reader.until(lambda: reader.of(Heartbeat))
        for frames in (
            [b"es1.dec.st1."],
            [b"es1.dec.st1.", b"h", b"b"],
            [b"es1.hb.st1.", bytes(32), b"{}", b"more"],
            [b"es1.dec.st1.", line.journal.epoch.to_bytes(32, "little"), b"{}"],
        ):
            line.publisher._socket.send_multipart(frames)
        line.decide(1)
        reader.until(lambda: reader.seqs() == [1])
        assert reader.subscriber.stats()["malformed"] == 4


def test_another_station_is_not_taken_for_the_one_that_was_meant(line: Line) -> None:
    with (
        closing(Subscriber(line.where, station="st10")) as subscriber,
        pytest.raises(ConfigError, match="this is station st1, not st10"),
    ):
        until(lambda: subscriber.poll(0.02))


def test_silence_is_noticed_once(line: Line) -> None:
    now = [0.0]
    with closing(Subscriber(line.where, clock=lambda: now[0])) as subscriber:
        until(lambda: any(isinstance(e, Back) for e in subscriber.poll(0)))
        until(lambda: [subscriber.poll(0)] and subscriber._silent_s == 0.175)
        line.control._heartbeat_ms = 10_000_000
        quiet = itertools.count()
        until(lambda: not subscriber.poll(0) and next(quiet) > 50)  # one may still be on its way
        now[0] += 0.17
        assert not [e for e in subscriber.poll(0) if isinstance(e, Silent)]
        now[0] += 0.1
        assert [e for e in subscriber.poll(0) if isinstance(e, Silent)]
        assert not subscriber.poll(0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("tcp://h:5560",), ("tcp://h:5560", "tcp://h:5561", "tcp://h:5562")),
        (("tcp://h:5560", None, "tcp://g:1"), ("tcp://h:5560", "tcp://h:5561", "tcp://g:1")),
        (("ipc:///run/d", None, "ipc:///run/c"), ("ipc:///run/d", None, "ipc:///run/c")),
        (("tcp://h:65535", None, "tcp://h:1"), ("tcp://h:65535", None, "tcp://h:1")),
    ],
)
def test_the_other_endpoints_follow_from_the_decisions(
    given: tuple[str, ...], expected: tuple[str | None, ...]
) -> None:
    assert tuple(of_station(*given)) == expected


@pytest.mark.parametrize(
    "given",
    [("h:5560",), ("tcp://h:*",), ("tcp://h:70000",), ("ipc:///d",), ("tcp://h:5560", "x")],
)
def test_endpoints_that_lead_nowhere_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"tcp://|ipc://"):
        of_station(*given)


def test_nothing_of_this_needs_a_running_context(line: Line) -> None:
    subscriber = Subscriber(line.where)
    subscriber.close()
    subscriber.close()
    with pytest.raises(zmq.ZMQError):
        subscriber.poll(0)
