"""Endpoints: what the rules allow, ZeroMQ can bind; what collides, it cannot bind twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from efficientad_stream.core.endpoint import check, collide


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://*:*", "tcp://0.0.0.0:*"]
)
def test_zeromq_binds_what_is_allowed(endpoint: str) -> None:
    check(endpoint)
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.bind(endpoint)


def test_zeromq_binds_ipc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check("ipc://socket")
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.bind("ipc://socket")


@pytest.mark.parametrize(
    "endpoint",
    [
        "", "5560", "127.0.0.1:5560", "tcp://", "tcp://:5560", "tcp://127.0.0.1", "tcp://127.0.0.1:",
        "tcp://127.0.0.1:x", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:-1", "tcp://a b:1", "ipc://",
        "udp://127.0.0.1:1", "inproc://a", "tcp://127.0.0.1:5560\n", "ipc://" + "a" * 100, "ipc://a\0",
    ],
)  # fmt: skip
def test_others_are_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is neither tcp://HOST:PORT nor a short ipc://PATH"):
        check(endpoint)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", True),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:01", True),
        ("tcp://*:1", "tcp://127.0.0.1:1", True),
        ("tcp://127.0.0.1:1", "tcp://0.0.0.0:1", True),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.2:1", False),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", False),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", False),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", False),
        ("ipc://a", "ipc://a", True),
        ("ipc://a", "ipc://b", False),
        ("ipc://a", "tcp://*:1", False),
    ],
)
def test_collisions(one: str, other: str, expected: bool) -> None:
    assert collide(one, other) is expected
    assert collide(other, one) is expected
