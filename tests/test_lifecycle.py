"""How a daemon leaves when things go wrong: real journal, sockets, threads and signals."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
import zmq
from station_kit import FREE, until

from efficientad_stream.core import wire
from efficientad_stream.core.errors import ConfigError, FatalError
from efficientad_stream.core.ledger import Ledger
from efficientad_stream.core.types import (
    FrameMeta,
    Inspection,
    PixelArray,
    Policy,
    Reason,
    RecipeId,
    Scores,
    Verdict,
)
from efficientad_stream.runtime.active import Active, ActiveRef
from efficientad_stream.runtime.capture import Capture
from efficientad_stream.runtime.daemon import Daemon, Mailbox, Service
from efficientad_stream.runtime.fanout import Fanout
from efficientad_stream.runtime.protocols import SourceEnded, Writable
from efficientad_stream.runtime.ring import FrameRing, batches
from efficientad_stream.runtime.status import StationStatus
from efficientad_stream.runtime.worker import Body, Worker
from efficientad_stream.sinks.control import Control
from efficientad_stream.sinks.journal import Journal
from efficientad_stream.sinks.publisher import Publisher


class Camera:
    """So many frames at once; then ``then`` happens, again and again."""

    paced = True

    def __init__(self, frames: int, then: Callable[[], None]) -> None:
        self.left, self.count, self.then = frames, 0, then

    def open(self) -> None:
        pass

    def grab_into(self, slot: Writable, timeout_s: float) -> FrameMeta | None:
        if self.count == self.left:
            self.then()
            return None
        self.count += 1
        slot.view(2, 2, 1)
        return FrameMeta(self.count, time.monotonic_ns(), 0, 2, 2, 1)

    def stats(self) -> dict[str, int]:
        return {"frames": self.count}

    def close(self) -> None:
        pass


class NobodyScores:
    """The inspection threads of these tests say what they like."""

    def check(self, frame: PixelArray) -> None:
        raise AssertionError

    def submit(self, frames: Sequence[PixelArray]) -> None:
        raise AssertionError

    def collect(self, ticket: object) -> list[Scores]:
        raise AssertionError

    def close(self) -> None:
        pass


class Station:
    """A daemon whose inspection thread does what a test says."""

    def __init__(
        self,
        folder: Path,
        camera: Camera,
        inspection: Callable[[Station], Body],
        services: Sequence[Service] = (),
    ) -> None:
        self.mail = Mailbox()
        self.journal = Journal.open(folder, 1 << 20, 50, 8, 1)
        self.context = context = zmq.Context[zmq.Socket[bytes]]()
        self.decisions = zmq.Context[zmq.Socket[bytes]]()
        self.publisher = publisher = Publisher(self.decisions, FREE, "st1", self.journal.head)
        self.ring = FrameRing(16)
        self.fanout = Fanout("st1", Ledger(0, 0), self.journal, publisher, self.ring)
        capture = Capture(camera, self.ring)
        active = ActiveRef(Active(RecipeId("r", 1, "0" * 64), Policy(1.0), NobodyScores()))
        self.status = StationStatus("st1", capture, self.ring, self.fanout, active, parts={})
        control = Control(
            context, FREE, station=self.status, records=self.journal, pulse=publisher,
            heartbeat_ms=20, on_failure=self.mail.died,
        )  # fmt: skip
        self.closed: list[str] = []
        self.daemon = Daemon(
            capture=Worker("capture", capture.run, self.mail.died),
            inspection=Worker("inspection", inspection(self), self.mail.died),
            ring=self.ring, fanout=self.fanout, status=self.status, mail=self.mail,
            control=control, services=services, hang_up=context.term,
            closing=(
                publisher.close, self.journal.close, self.decisions.term,
                lambda: self.closed.append("closed"),
            ),
        )  # fmt: skip

    def verdicts(self) -> list[tuple[int, int, str | None]]:
        """(seq, frame_id, reason) of everything in the journal; all of it INVALID."""
        found = []
        for seq, header, body in self.journal.read(1, 1000, 1000):
            decision = wire.decode_decision(header, body)
            assert decision.header.verdict is Verdict.INVALID
            found.append((seq, decision.body.frame_id, decision.body.reason))
        return found


def doing(act: Callable[[Station, threading.Event], None]) -> Callable[[Station], Body]:
    return lambda station: lambda stop: act(station, stop)


def answer(station: Station, stop: threading.Event) -> None:
    """An inspection thread that finds everything non-finite, and ends with the ring."""
    for batch in station.fanout.admitting(batches(station.ring, 4, 0, stop)):
        for frame in batch:
            station.fanout.deliver(
                Inspection(frame.meta, Verdict.INVALID, Reason.NON_FINITE, 1.0, None,
                           decided_ns=time.monotonic_ns(), slot=frame.slot)
            )  # fmt: skip
    station.mail.ended()


def send(*signums: signal.Signals) -> Callable[[], None]:
    """What a camera does when its frames are out: signals to this process, once each."""
    left = list(signums)

    def fire() -> None:
        if left:
            os.kill(os.getpid(), left.pop(0))
        time.sleep(0.01)

    return fire


def end() -> None:
    raise SourceEnded


@pytest.fixture(autouse=True)
def _undisturbed() -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert {s: signal.getsignal(s) for s in before} == before  # the daemon cleans up behind it
    structlog.reset_defaults()


@pytest.mark.parametrize("then", [end, *map(send, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))])
def test_all_frames_answered_and_everything_closed(
    tmp_path: Path, then: Callable[[], None]
) -> None:
    station = Station(tmp_path / "j", Camera(9, then), doing(answer))
    assert station.daemon.run() == 0
    assert station.closed == ["closed"]
    assert not station.daemon.stuck
    assert station.ring.stats()["free"] == 16
    assert [seq for seq, *_ in station.verdicts()] == list(range(1, 10))


def test_a_hanging_engine_does_not_hold_up_the_end(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(station: Station, stop: threading.Event) -> None:
        feed = station.fanout.admitting(batches(station.ring, 4, 0, stop))
        batch = next(feed)
        assert release.wait(30)
        for frame in batch:  # too late
            station.fanout.deliver(
                Inspection(frame.meta, Verdict.INVALID, Reason.NON_FINITE, 1.0, None,
                           decided_ns=time.monotonic_ns(), slot=frame.slot)
            )  # fmt: skip
        assert list(feed) == []

    station = Station(tmp_path / "j", Camera(9, send(signal.SIGTERM)), doing(hang))
    start = time.monotonic()
    assert station.daemon.run() == 0
    assert time.monotonic() - start < 2.5  # the signal comes at once
    assert station.daemon.stuck
    assert station.closed == ["closed"]
    wanted = [(n, n, "stopped") for n in range(1, 10)]
    assert station.verdicts() == wanted
    release.set()
    until(lambda: station.ring.stats()["free"] == 16)
    assert station.verdicts() == wanted


def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    station = Station(tmp_path / "j", Camera(9, send(signal.SIGTERM)), doing(answer))
    sync, release = os.fdatasync, threading.Event()

    def hang(fd: int) -> None:
        assert release.wait(30)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", hang)
    start = time.monotonic()
    assert station.daemon.run() == 0
    assert time.monotonic() - start < 2
    assert "the disk has not confirmed the last records" in capsys.readouterr().out
    assert [seq for seq, *_ in station.verdicts()] == list(range(1, 10))
    assert station.decisions.closed
    release.set()
    until(lambda: not any(t.name == "journal-close" for t in threading.enumerate()))


class Hangs:
    """A service that does not end when it is asked to."""

    def start(self) -> None:
        pass

    def stop(self, timeout_s: float) -> bool:
        time.sleep(timeout_s)
        return False


def test_a_hanging_service_does_not_keep_the_last_verdicts_in(tmp_path: Path) -> None:
    """The process ends by ``os._exit`` then: what ZeroMQ had not sent would be gone."""
    listening = threading.Event()

    def wait_and_answer(station: Station, stop: threading.Event) -> None:
        assert listening.wait(30)
        answer(station, stop)

    station = Station(
        tmp_path / "j", Camera(9, lambda: time.sleep(0.01)), doing(wait_and_answer), [Hangs()]
    )
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.linger = 0
        sub.subscribe(b"es1.")
        sub.connect(station.publisher.endpoint)
        station.daemon._start()
        assert sub.poll(5000)  # the subscription has arrived: the heartbeat is there
        listening.set()
        until(lambda: station.fanout.head == 9)
        began = time.monotonic()
        station.daemon._leave()
        assert time.monotonic() - began < 2
        assert station.daemon.stuck
        assert station.decisions.closed
        heard = []
        while sub.poll(500):
            heard.append(sub.recv_multipart())
    seqs = [wire.unpack_header(h).seq for topic, h, _ in heard if topic.startswith(b"es1.dec.")]
    assert seqs == list(range(1, 10))
    assert wire.decode_heartbeat(*heard[-1][1:]).body.state == "stopped"
    station.context.destroy(linger=0)


def test_a_second_signal_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    def hang(station: Station, _stop: threading.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: station.status.state() == "draining")
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: codes)

    station = Station(tmp_path / "j", Camera(3, lambda: time.sleep(0.01)), doing(hang))
    station.daemon.run()
    assert codes == [128 + signal.SIGINT]


def test_a_defect_in_a_worker_ends_it_with_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(station: Station, stop: threading.Event) -> None:
        next(station.fanout.admitting(batches(station.ring, 4, 0, stop)))
        raise KeyError("surprise")

    station = Station(tmp_path / "j", Camera(5, lambda: time.sleep(0.01)), doing(fail))
    with pytest.raises(FatalError, match=r"inspection died: KeyError\('surprise'\)"):
        station.daemon.run()
    assert "in fail" in capsys.readouterr().out  # the traceback is in the log
    found = station.verdicts()
    assert [reason for *_, reason in found] == ["stopped"] * len(found)
    assert [frame for _, frame, _ in found] == list(range(1, 6))
    assert station.closed == ["closed"]


def test_a_mistake_is_raised_as_it_is_even_if_the_end_is_heard_first(tmp_path: Path) -> None:
    def mistake() -> None:
        raise ConfigError("source.start_frame: 50: behind the end")

    station = Station(tmp_path / "j", Camera(2, mistake), doing(answer))
    with pytest.raises(ConfigError, match="start_frame: 50"):
        station.daemon.run()
    assert len(station.verdicts()) == 2


def test_a_journal_that_fails_ends_it_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    station = Station(tmp_path / "j", Camera(5, lambda: time.sleep(0.01)), doing(answer))
    append = station.journal.append

    def full(seq: int, header: bytes, body: bytes) -> None:
        if seq >= 3:
            raise FatalError("journal: No space left on device")
        append(seq, header, body)

    monkeypatch.setattr(station.journal, "append", full)
    with pytest.raises(FatalError, match="No space left"):
        station.daemon.run()
    assert len(station.verdicts()) == 2
    assert "left in disorder" in capsys.readouterr().out
    assert station.closed == ["closed"]
    assert station.decisions.closed  # the goodbye has gone out
    assert station.context.closed


def test_status_says_what_is_going_on(tmp_path: Path) -> None:
    seen: list[object] = []
    station: Station

    def look() -> None:
        until(lambda: station.fanout.stats().get("invalid") == 4)
        seen.append(station.status.state())
        seen.append(station.status.counters())
        seen.append(station.status.status())
        raise SourceEnded

    station = Station(tmp_path / "j", Camera(4, look), doing(answer))
    assert station.status.state() == "starting"
    station.daemon.run()
    assert station.status.state() == "draining"
    assert seen[0] == "running"
    assert seen[1] == {"pass": 0, "fail": 0, "invalid": 4, "overruns": 0, "waiting": 0}
    status = seen[2]
    assert isinstance(status, dict)
    assert status["camera"]["state"] == "streaming"
    assert status["camera"]["captured"] == 4
    assert status["recipe"]["name"] == "r"
    assert status["verdicts"]["invalid_non_finite"] == 4
    assert status["ring"]["slots"] == 16
