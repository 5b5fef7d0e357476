"""What a station says of itself, to heartbeats and to whoever asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from efficientad_stream.runtime.active import ActiveRef
from efficientad_stream.runtime.capture import Capture
from efficientad_stream.runtime.fanout import Fanout
from efficientad_stream.runtime.ring import FrameRing


class Counting(Protocol):
    """Anything that counts."""

    def stats(self) -> Mapping[str, int]:
        """Its counters."""


class StationStatus:
    """State and figures of one daemon; read from any thread, never waits.

    Args:
        name: of the station.
        parts: whatever else counts, by the name under which the status shows it.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        name: str,
        capture: Capture,
        ring: FrameRing,
        fanout: Fanout,
        active: ActiveRef,
        *,
        parts: Mapping[str, Counting],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self._capture, self._ring, self._fanout, self._active = capture, ring, fanout, active
        self._parts = dict(parts)
        self._clock = clock
        self._since_ns = clock()
        self._state = "starting"

    def enter(self, state: str) -> None:
        """Change the state: "starting", "running" or "draining"."""
        self._state = state

    def state(self) -> str:
        """What the daemon does now."""
        return self._state

    def counters(self) -> Mapping[str, int]:
        """The few numbers that go with every heartbeat."""
        verdicts = self._fanout.stats()
        return {
            **{name: verdicts.get(name, 0) for name in ("pass", "fail", "invalid")},
            "overruns": self._capture.overruns,
            "waiting": self._ring.stats()["waiting"],
        }

    def status(self) -> Mapping[str, Any]:
        """Everything, as JSON can carry it."""
        active = self._active.get()
        return {
            "uptime_s": (self._clock() - self._since_ns) // 1_000_000_000,
            "recipe": {
                "name": active.recipe.name,
                "revision": active.recipe.revision,
                "model_sha256": active.recipe.model_sha256,
                "threshold": active.policy.threshold,
                "deadline_us": active.policy.deadline_us,
            },
            "camera": {"state": self._capture.state.value, **self._capture.stats()},
            "ring": dict(self._ring.stats()),
            "verdicts": dict(self._fanout.stats()),
            "latency_us": dict(self._fanout.latency_us()),
            **{name: dict(part.stats()) for name, part in self._parts.items()},
        }
