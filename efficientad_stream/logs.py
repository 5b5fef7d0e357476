"""Diagnostics: structlog on standard error, for people on a terminal, as JSON elsewhere.

``setup`` once at start; everybody else takes ``get()``. Times are UTC. Losing a log line never
stops an inspection: a standard error that is closed, or that nobody reads, loses them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from efficientad_stream.tolerant import Tolerant

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]

NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
SECOND_NS = 1_000_000_000


def setup(
    level: Level = "info",
    fmt: Format = "auto",
    station: str | None = None,
    stream: TextIO | None = None,
) -> Tolerant:
    """Configure logging for the process; ``station``, if given, is on every line.

    Returns:
        The stream that lines go to, with its counter of lost ones.
    """
    target = sys.stderr if stream is None else stream
    out = Tolerant(target)
    console = fmt == "console" or (fmt == "auto" and target.isatty())
    structlog.configure(
        processors=_processors(console, station, target.isatty()),
        wrapper_class=structlog.make_filtering_bound_logger(NUMBERS[level]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", out)),
        cache_logger_on_first_use=False,
    )
    return out


def _processors(console: bool, station: str | None, colours: bool) -> list[Processor]:
    """The chain that makes a line of an event."""

    def bind_station(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event.setdefault("station", station)
        return event

    chain: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if station is not None:
        chain.append(bind_station)
    if console:
        plain = structlog.dev.plain_traceback
        return [*chain, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    return [
        *chain,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=repr),
    ]


def get(**bound: Any) -> FilteringBoundLogger:
    """A logger; ``bound`` is on every line it writes."""
    return cast("FilteringBoundLogger", structlog.get_logger(**bound))


class RateLimited:
    """An event of the hot path: counted each time, logged at most once in ``every_ns``.

    The first occurrence is logged at once, later ones together with their ``count`` since the last
    line. Safe to share between threads.
    """

    def __init__(
        self,
        event: str,
        level: Level = "warning",
        every_ns: int = SECOND_NS,
        clock: Callable[[], int] = time.monotonic_ns,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        self._event = event
        self._level = NUMBERS[level]
        self._every_ns = every_ns
        self._clock = clock
        self._logger = get() if logger is None else logger
        self._lock = threading.Lock()
        self._pending = 0
        self._last_ns: int | None = None
        self._fields: dict[str, Any] = {}
        self.total = 0

    def hit(self, **fields: Any) -> None:
        """Count one; log it if the last line is long enough ago."""
        now = self._clock()
        with self._lock:
            self.total += 1
            self._pending += 1
            self._fields = fields
            if self._last_ns is not None and now - self._last_ns < self._every_ns:
                return
            self._last_ns = now
            count, self._pending = self._pending, 0
        self._write(count, fields)

    def flush(self) -> None:
        """Log what has been counted and not been said; for the end of a worker."""
        with self._lock:
            count, self._pending = self._pending, 0
            fields = self._fields
        if count:
            self._write(count, fields)

    def _write(self, count: int, fields: dict[str, Any]) -> None:
        self._logger.log(self._level, self._event, count=count, total=self.total, **fields)
