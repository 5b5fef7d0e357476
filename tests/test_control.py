from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from station_kit import ANYWHERE, Line, Peer, until

from efficientad_stream.core import wire
from efficientad_stream.core.consumers import FORGET_NS, LIVE_NS, MAX_CONSUMERS, Consumers
from efficientad_stream.core.dialogue import (
    Ack,
    Acked,
    End,
    Error,
    Gap,
    Get,
    Hello,
    Record,
    Status,
    StatusRequest,
    Welcome,
)
from efficientad_stream.core.endpoint import Endpoints
from efficientad_stream.core.errors import ConfigError, FatalError
from efficientad_stream.core.messages import Heartbeat


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path / "journal")
    yield line
    line.close()


@pytest.fixture
def peer(line: Line) -> Iterator[Peer]:
    peer = Peer(line.where.control)
    yield peer
    peer.close()


def listen(line: Line, topic: bytes) -> zmq.Socket[bytes]:
    """A raw SUB socket at the decisions endpoint."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    sub = context.socket(zmq.SUB)
    sub.linger = 0
    sub.subscribe(topic)
    sub.connect(line.where.decisions)
    return sub


def next_heartbeat(sub: zmq.Socket[bytes]) -> Heartbeat:
    assert sub.poll(5000), "no heartbeat within 5 s"
    topic, header, body = sub.recv_multipart()
    assert topic == b"es1.hb.st1."
    return wire.decode_heartbeat(header, body)


def test_hello_is_answered_with_where_the_station_stands(line: Line, peer: Peer) -> None:
    line.decide(3)
    welcome = peer.ask(Hello(consumer="gate"))
    assert isinstance(welcome, Welcome)
    assert (welcome.station, welcome.state, welcome.heartbeat_ms) == ("st1", "running", 50)
    assert (welcome.head, welcome.oldest, welcome.run_first) == (3, 1, 1)
    assert welcome.epoch == line.journal.epoch


def test_get_returns_the_records_byte_for_byte(line: Line, peer: Peer) -> None:
    line.decide(700)
    peer.send(b"GET", b'{"from":101,"to":600}')
    records = [peer.receive() for _ in range(500)]
    assert records == [Record(h, b) for _, h, b in line.journal.read(101, 600, 500)]
    assert peer.receive() == End(last=600)
    peer.send(b"GET", b'{"from":700,"to":900}')
    assert isinstance(peer.receive(), Record)
    assert peer.receive() == End(last=700)
    assert peer.ask(Get(first=701, last=701)) == End(last=700)


def test_get_of_what_is_no_longer_kept_is_a_gap(tmp_path: Path) -> None:
    line = Line(tmp_path, segment_bytes=4096, keep_segments=2)
    line.decide(100)
    oldest = line.journal.oldest
    assert oldest > 2
    peer = Peer(line.where.control)
    assert peer.ask(Get(first=1, last=10)) == Gap(oldest=oldest)
    assert peer.ask(Get(first=oldest - 1, last=oldest + 1)) == Gap(oldest=oldest)
    assert isinstance(peer.ask(Get(first=oldest, last=oldest)), Record)
    peer.close()
    line.close()


def test_status_tells_who_listens_and_how_far_they_are(line: Line, peer: Peer) -> None:
    line.decide(5)
    peer.ask(Hello(consumer="gate", last=1))
    assert peer.ask(Ack(upto=4, stage="stored")) == Acked(upto=4)
    peer.send(b"nonsense")
    peer.receive()
    status = peer.ask(StatusRequest())
    assert isinstance(status, Status)
    content = status.content
    assert (content["state"], content["head"], content["recipe"]) == ("running", 5, "tile")
    (gate,) = content["consumers"]
    assert (gate["consumer"], gate["upto"], gate["stage"]) == ("gate", 4, "stored")
    assert content["control"]["malformed"] == 1


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\x00" * 1000],
        [b"GET", b"{}"],
        [b"GET", b'{"from":1,"to":1000000}'],
        [b"HELLO", b"[" * 60_000],
        [b"ACK", b'{"upto":1e99}'],
        [b"REC", b"h", b"b"],
        [b"STATUS", b"{", b"}"],
        [b"x"] * 200,
    ],
)
def test_garbage_is_answered_with_a_reason_and_counted(
    line: Line, peer: Peer, frames: list[bytes]
) -> None:
    peer.send(*frames)
    answer = peer.receive()
    assert isinstance(answer, Error)
    assert answer.reason
    assert line.control.stats()["malformed"] == 1
    assert isinstance(peer.ask(Hello(consumer="gate")), Welcome)


def test_what_is_too_large_or_not_zeromq_only_loses_its_own_connection(
    line: Line, peer: Peer
) -> None:
    address = line.where.control.removeprefix("tcp://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        big = Peer(line.where.control)
        big.send(b"HELLO", bytes(1 << 20))
        assert isinstance(peer.ask(StatusRequest()), Status)
        big.close()
    assert isinstance(peer.ask(StatusRequest()), Status)
    assert not line.failures


def test_a_peer_that_never_reads_blocks_nobody(line: Line, peer: Peer) -> None:
    line.decide(500)
    deaf = Peer(line.where.control)
    for _ in range(40):
        deaf.send(b"GET", b'{"from":1,"to":500}')
    peer.send(b"STATUS")
    sub = listen(line, b"es1.hb.")
    assert next_heartbeat(sub).body.head == 500
    assert isinstance(peer.receive(), Status)
    until(lambda: line.control.stats()["requests"] == 41)
    assert next_heartbeat(sub).body.state == "running"
    assert line.control.stats()["failed"] > 0  # it asked for 20 000 records and read none
    sub.close()
    deaf.close()


def test_a_reply_to_a_peer_that_is_gone_is_counted(line: Line) -> None:
    assert line.control._worker.stop(5)  # so that its socket may be used here
    assert not line.control._reply(b"nobody", Acked(upto=1))
    assert line.control.stats()["failed"] == 1


def test_heartbeats_carry_head_state_and_counters_and_the_last_one_says_stopped(
    tmp_path: Path,
) -> None:
    line = Line(tmp_path)
    sub = listen(line, b"es1.hb.st1.")
    first = next_heartbeat(sub)
    assert (first.body.state, first.body.head, first.header.epoch) == (
        "running",
        0,
        line.journal.epoch,
    )
    line.decide(2)
    until(lambda: next_heartbeat(sub).body.counters == {"frames": 2})
    line.doing = "draining"
    until(lambda: next_heartbeat(sub).body.state == "draining")
    line.close()
    until(lambda: next_heartbeat(sub).body.state == "stopped")
    sub.close()


def test_a_heartbeat_never_runs_ahead_of_the_decisions_on_its_socket(line: Line) -> None:
    sub = listen(line, b"es1.")
    next_heartbeat(sub)
    line.control._heartbeat_ms = 10
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            line.decide(1)

    worker = threading.Thread(target=work)
    worker.start()
    last = beats = 0
    while beats < 10:
        assert sub.poll(5000)
        topic, header, _ = sub.recv_multipart()
        seq = wire.unpack_header(header).seq
        if topic == b"es1.dec.st1.":
            assert seq == last + 1
            last = seq
        else:
            assert seq <= last
            beats += 1
    done.set()
    worker.join(10)
    sub.close()
    assert last > 10


def test_a_heartbeat_tells_of_a_decision_that_was_recorded_and_never_sent(line: Line) -> None:
    line.decide(2)
    line.decide(1, send=False)
    sub = listen(line, b"es1.hb.")
    until(lambda: next_heartbeat(sub).header.seq == 3)
    sub.close()


def test_a_run_that_ends_waits_for_those_who_listen(line: Line, peer: Peer) -> None:
    line.decide(3)
    assert line.control.wait_for_acks(3, 0)
    peer.ask(Hello(consumer="gate"))
    assert not line.control.wait_for_acks(3, 0)
    peer.ask(Ack(upto=2))
    assert not line.control.wait_for_acks(3, 0)
    arrived: list[bool] = []
    waiter = threading.Thread(target=lambda: arrived.append(line.control.wait_for_acks(3, 10)))
    waiter.start()
    peer.ask(Ack(upto=3))
    waiter.join(10)
    assert arrived == [True]


def test_a_hello_that_knows_more_than_the_journal_has_nothing(line: Line, peer: Peer) -> None:
    line.decide(3)
    peer.ask(Hello(consumer="gate", last=900))
    assert not line.control.wait_for_acks(3, 0)


@pytest.mark.parametrize("which", [0, 2])
def test_a_port_in_use_is_said_in_one_line(line: Line, tmp_path: Path, which: int) -> None:
    taken = list(ANYWHERE)
    taken[which] = line.where[which]
    with pytest.raises(FatalError, match=f"{taken[which]} is in use by another process"):
        Line(tmp_path / "other", Endpoints(*taken))  # type: ignore[arg-type]


def test_an_address_of_another_machine_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"publish\.decisions: tcp://192\.0\.2\.1:5560 cannot"):
        Line(tmp_path, Endpoints("tcp://192.0.2.1:5560", None, "tcp://127.0.0.1:*"))


def test_the_table_of_consumers_is_bounded_and_forgets_the_silent() -> None:
    table = Consumers()
    for n in range(MAX_CONSUMERS):
        assert table.hello(b"%d" % n, f"c{n}", 0, now_ns=n)
    assert not table.hello(b"one more", "new", 0, now_ns=100)
    assert table.hello(b"reconnected", "c3", 7, now_ns=100)
    assert not table.hello(b"one more", "new", 0, now_ns=101)
    assert table.hello(b"one more", "new", 0, now_ns=FORGET_NS + 2)
    assert len(table.describe(FORGET_NS + 2)) == MAX_CONSUMERS - 1


def test_only_live_consumers_are_waited_for() -> None:
    table = Consumers()
    table.hello(b"a", "slow", 0, now_ns=0)
    table.hello(b"b", "done", 9, now_ns=0)
    assert table.behind(9, LIVE_NS) == ["slow"]
    assert table.behind(9, LIVE_NS + 1) == []
    table.heard(b"a", LIVE_NS)
    assert table.behind(9, LIVE_NS + 1) == ["slow"]
    table.ack(b"a", 9, "seen")
    table.ack(b"a", 5, "stored")
    table.ack(b"unknown", 5, "seen")
    table.heard(b"unknown", 0)
    assert table.behind(9, LIVE_NS + 1) == []
