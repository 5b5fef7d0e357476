"""Binding: what is taken is said to be taken, and nobody's file is removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from efficientad_stream.core.errors import ConfigError, FatalError
from efficientad_stream.runtime.sockets import bind


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_a_port_that_is_taken(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    first = context.socket(zmq.PUB)  # held: a collected socket gives its port back
    taken = bind(first, "tcp://127.0.0.1:*", "publish.decisions")
    with pytest.raises(FatalError, match=r"publish.control: tcp://.* is in use by another"):
        bind(context.socket(zmq.ROUTER), taken, "publish.control")


def test_a_path_that_is_taken(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> None:
    where = f"ipc://{tmp_path}/s"
    first = context.socket(zmq.PUB)
    bind(first, where, "publish.decisions")
    with pytest.raises(FatalError, match="in use by another process; choose another path"):
        bind(context.socket(zmq.PUB), where, "publish.decisions")
    reader = context.socket(zmq.SUB)
    reader.subscribe(b"")
    reader.connect(where)
    for _ in range(100):  # the one that was there first still serves
        first.send(b"x")
        if reader.poll(50):
            return
    raise AssertionError("nothing came")


def test_a_socket_that_nobody_listens_on_any_more_is_no_hindrance(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    where = f"ipc://{tmp_path}/s"
    dead = context.socket(zmq.PUB)
    dead.bind(where)
    kept = tmp_path / "kept"
    (tmp_path / "s").rename(kept)
    dead.close(linger=0)
    context.destroy(linger=0)
    kept.rename(tmp_path / "s")  # as a killed daemon leaves it
    with zmq.Context() as again, again.socket(zmq.PUB) as socket:
        assert bind(socket, where, "publish.decisions") == where


def test_a_file_of_that_name_is_left_alone(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    file, folder = tmp_path / "notes", tmp_path / "folder"
    file.write_text("keep me")
    folder.mkdir()
    for path in (file, folder):
        with pytest.raises(ConfigError, match="there is a file or folder of that name"):
            bind(context.socket(zmq.PUB), f"ipc://{path}", "publish.decisions")
    assert file.read_text() == "keep me"


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:*", "ipc:///nowhere/at/all"])
def test_an_address_of_another_machine(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str
) -> None:
    with pytest.raises(ConfigError, match="cannot be bound"):
        bind(context.socket(zmq.PUB), endpoint, "publish.decisions")
