"""A station without a camera: real journal, real sockets on free ports, verdicts on demand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zmq

from efficientad_stream.core import dialogue, wire
from efficientad_stream.core.endpoint import Endpoints
from efficientad_stream.core.types import FrameMeta, Inspection, Reason, RecipeId, Scores, Verdict
from efficientad_stream.sinks.control import Control
from efficientad_stream.sinks.journal import Journal
from efficientad_stream.sinks.publisher import Publisher

FREE = "tcp://127.0.0.1:*"
ANYWHERE = Endpoints(FREE, None, FREE)


def inspection(seq: int, verdict: Verdict | None = None, truth: str | None = None) -> Inspection:
    """Part ``seq``: every third fails, every seventh is invalid, unless told otherwise."""
    if verdict is None:
        verdict = (
            Verdict.INVALID if seq % 7 == 0 else Verdict.FAIL if seq % 3 == 0 else Verdict.PASS
        )
    score = {Verdict.PASS: 0.25, Verdict.FAIL: 0.75}.get(verdict, float("nan"))
    return Inspection(
        meta=FrameMeta(seq, 1000, 1_700_000_000_000_000, part_id=f"part-{seq}", truth=truth),
        verdict=verdict,
        reason=Reason.NON_FINITE if verdict is Verdict.INVALID else None,
        threshold=0.5,
        recipe=RecipeId("tile", 1, "ab" * 32),
        scores=Scores(score, score, score),
        decided_ns=5_001_000,
        seq=seq,
    )


class Line:
    """Journal, publisher and control of one station, as the daemon puts them together."""

    name = "st1"

    def __init__(self, folder: Path, where: Endpoints = ANYWHERE, **journal: int) -> None:
        options = {"segment_bytes": 1 << 16, "sync_ms": 50, "keep_segments": 1000} | journal
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.failures: list[BaseException] = []
        self.doing = "running"
        self.journal = Journal.open(folder, **options, now_us=time.time_ns() // 1000)
        self.publisher = Publisher(self.context, where.decisions, self.name, self.journal.head)
        self.control = Control(
            self.context,
            where.control,
            station=self,
            records=self.journal,
            pulse=self.publisher,
            heartbeat_ms=50,
            on_failure=lambda _name, error: self.failures.append(error),
        )
        self.where = Endpoints(self.publisher.endpoint, None, self.control.endpoint)
        self.control.start()

    def state(self) -> str:
        return self.doing

    def counters(self) -> Mapping[str, int]:
        return {"frames": self.journal.head}

    def status(self) -> Mapping[str, Any]:
        return {"recipe": "tile"}

    def decide(self, count: int, *, send: bool = True, **how: Any) -> None:
        """``count`` more verdicts; ``send=False``: recorded, but lost on the way."""
        for seq in range(self.journal.head + 1, self.journal.head + count + 1):
            message = wire.encode_decision(
                inspection(seq, **how), self.name, self.journal.epoch, 0, None
            )
            self.journal.append(seq, *message)
            if send:
                self.publisher.send(*message)

    def close(self) -> None:
        """Stop as the daemon does when it is asked to."""
        assert self.control.stop(5)
        self.publisher.close()
        self.journal.close()
        self.context.term()
        assert not self.failures

    def vanish(self) -> None:
        """Stop as a killed daemon does: no goodbye on the wire, no note in the journal."""
        self.publisher._socket.close(linger=0)
        self.publisher._socket = self.context.socket(zmq.PUB)
        self.control.stop(5)
        self.context.destroy(linger=0)
        self.journal._syncer.close()
        os.close(self.journal._file_lock._fd)


class Peer:
    """A raw DEALER at a control socket."""

    def __init__(self, endpoint: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(list(frames))

    def receive(self) -> dialogue.Reply:
        assert self.socket.poll(5000), "no reply within 5 s"
        return dialogue.decode_reply(self.socket.recv_multipart())

    def ask(self, request: dialogue.Request) -> dialogue.Reply:
        self.send(*dialogue.encode(request))
        return self.receive()

    def close(self) -> None:
        self.context.destroy(linger=0)


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for ``condition``, not for time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it has not happened within the time allowed"
        time.sleep(0.002)
