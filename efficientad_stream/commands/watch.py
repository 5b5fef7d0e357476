"""``watch``: print the verdicts of a running station.

Exit codes: 0 at Ctrl-C, after --count, or when the station stopped and everything arrived;
5 if --timeout passed without a word, or after --exit-on-stop decisions are missing or the station
stopped before it could be asked for them.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from efficientad_stream.core import text
from efficientad_stream.core.catchup import Refused
from efficientad_stream.core.endpoint import Endpoints, of_station
from efficientad_stream.core.errors import ConfigError, FatalError, TransientError
from efficientad_stream.core.messages import Decision, Heatmap, Station
from efficientad_stream.core.sequencer import Lost, NewEpoch, Start
from efficientad_stream.core.tally import Tally
from efficientad_stream.subscriber import UNKNOWN, Back, Event, Silent, Subscriber

POLL_S = 0.1
STATUS_S = 0.25
LAST_HEATMAPS_S = 0.5
"""Heatmaps come on a socket of their own, a little later than the verdicts they belong to."""
SUFFIX = {"jpeg": ".jpg", "png8": ".png"}
ERASE = "\r\x1b[K"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The endpoint, where to begin, how to show it, when to end."""
    parser.add_argument("endpoint", metavar="ENDPOINT", help="decisions, such as tcp://HOST:5560")
    parser.add_argument("--heatmaps", metavar="E", help="heatmaps endpoint; default: one port up")
    parser.add_argument("--control", metavar="E", help="control endpoint; default: two ports up")
    parser.add_argument("--station", type=_name, metavar="NAME", help="refuse any other station")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        "--from", dest="start", type=_start, default=Start.NEW, metavar="SEQ",
        help="begin with this seq, or with the first of this run (run); default: new ones only",
    )  # fmt: skip
    begin.add_argument(
        "--all", dest="start", action="store_const", const=Start.ALL,
        help="begin with the oldest decision in the journal",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a decision")
    parser.add_argument(
        "--save-heatmaps",
        metavar="DIR",
        type=Path,
        help="as SEQ_VERDICT.jpg; of a new epoch as EPOCH_SEQ_VERDICT.jpg",
    )
    parser.add_argument("--count", type=_positive, metavar="N", help="end after N decisions")
    parser.add_argument("--exit-on-stop", action="store_true", help="end when the station does")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="S", help="end after S seconds without a heartbeat"
    )


def run(args: argparse.Namespace) -> int:
    """Watch until there is a reason to end; the summary goes to standard error."""
    where = _endpoints(args)
    if args.save_heatmaps is not None:
        _make_folder(args.save_heatmaps)
    with contextlib.closing(
        Subscriber(
            where,
            start=args.start,
            station=args.station,
            heatmaps=args.save_heatmaps is not None,
        )
    ) as subscriber:
        watch = Watch(subscriber, args)
        with _interruptible():
            watch.run()
        watch.finish()
    return 0


class Watch:
    """One watch, from the first event to the summary."""

    def __init__(self, subscriber: Subscriber, args: argparse.Namespace) -> None:
        self._subscriber = subscriber
        self._args = args
        self._tally = Tally()
        self._saved = 0
        self._epoch: int | None = None
        """Of the first heatmap."""
        self._began = time.monotonic()
        self._colour = sys.stdout.isatty()
        self._live = sys.stderr.isatty() and not args.json
        self._drawn = 0.0

    def run(self) -> None:
        """Show events until the count is reached, the station has stopped, or time is up."""
        while not self._done():
            self._show(self._subscriber.poll(POLL_S))
            self._draw()
        if self._args.save_heatmaps is not None:
            self._await_heatmaps()

    def finish(self) -> None:
        """The summary, and an error if this watch did not get what it was there for.

        Raises:
            TransientError: the station said nothing for too long or stopped too early, or decisions
                are missing.
        """
        self._say(text.summary(self._tally, time.monotonic() - self._began))
        if self._args.save_heatmaps is not None:
            self._say(f"{self._saved} heatmaps in {self._args.save_heatmaps}")
        if self._silent():
            raise TransientError(
                f"no heartbeat from {self._args.endpoint} for {self._args.timeout:g} s"
            )
        if self._args.exit_on_stop and self._subscriber.finished and not self._subscriber.begun:
            raise TransientError(
                f"{self._args.endpoint} stopped before it could be asked for its decisions; "
                "efficientad-stream journal reads them from its disk"
            )
        missing = self._subscriber.missing + self._tally.lost
        if self._args.exit_on_stop and missing and not self._counted():
            raise TransientError(f"{missing} decisions of {self._args.endpoint} are missing")

    def _done(self) -> bool:
        stopped = self._args.exit_on_stop and self._subscriber.finished
        return self._counted() or stopped or self._silent()

    def _counted(self) -> bool:
        return self._args.count is not None and self._tally.parts >= self._args.count

    def _silent(self) -> bool:
        silent = time.monotonic() - self._subscriber.heard
        return self._args.timeout is not None and silent > self._args.timeout

    def _show(self, events: list[Event]) -> None:
        now, lines = time.monotonic(), []
        for event in events:
            if isinstance(event, Decision) and not self._counted():
                self._tally.add(event, now)
                lines.append(self._line(event))
            elif isinstance(event, Heatmap):
                self._save(event)
            elif news := self._news(event):
                self._say(news)
        if lines:
            self._clear()
            print("\n".join(lines), flush=True)

    def _line(self, decision: Decision) -> str:
        if self._args.json:
            return text.decision_json(decision)
        return text.decision_line(decision, self._colour)

    def _news(self, event: Event) -> str | None:
        """What to say of an event that is neither verdict nor heatmap."""
        if isinstance(event, Lost):
            self._tally.lost += event.last - event.first + 1
            return f"seq {event.first} to {event.last} are no longer kept by the station"
        if isinstance(event, NewEpoch):
            return f"a new journal: epoch {event.epoch}, seq begins again"
        if isinstance(event, Refused):
            return f"the station refused: {text.printable(event.reason)}"
        return self._pulse(event)

    def _pulse(self, event: Event) -> str | None:
        """What to say when the heartbeat comes or goes."""
        if isinstance(event, Back):
            return f"station is {text.printable(event.state)}"
        if not isinstance(event, Silent):
            return None
        if self._subscriber.state == UNKNOWN:
            return f"waiting for a station at {self._args.endpoint}"
        return f"HEARTBEAT LOST: nothing for {event.after_s:.2f} s; gates reject"

    def _save(self, heatmap: Heatmap) -> None:
        header = heatmap.header
        name = f"{header.seq}_{header.verdict.name}{SUFFIX[heatmap.body.format]}"
        if self._epoch is None:
            self._epoch = header.epoch
        elif header.epoch != self._epoch:  # whose seq begins again
            name = f"{header.epoch}_{name}"
        path = self._args.save_heatmaps / name
        try:
            path.write_bytes(heatmap.image)
        except OSError as error:
            raise FatalError(f"{path}: {error.strerror}") from error
        self._saved += 1

    def _await_heatmaps(self) -> None:
        end = time.monotonic() + LAST_HEATMAPS_S
        while time.monotonic() < end:
            for event in self._subscriber.poll(POLL_S):
                if isinstance(event, Heatmap):
                    self._save(event)

    def _say(self, words: str) -> None:
        self._clear()
        print(words, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        """The status line, at the bottom of a terminal."""
        now = time.monotonic()
        if self._live and now - self._drawn >= STATUS_S:
            self._drawn = now
            line = text.status_line(self._tally, self._subscriber.state, now)
            print(f"{ERASE}{line}", end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._live:
            print(ERASE, end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside, and are not errors."""

    def leave(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, leave)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _endpoints(args: argparse.Namespace) -> Endpoints:
    try:
        where = of_station(args.endpoint, args.heatmaps, args.control)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if args.save_heatmaps is not None and where.heatmaps is None:
        raise ConfigError(f"where heatmaps are does not follow from {args.endpoint}: --heatmaps")
    return where


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--save-heatmaps {folder}: {error.strerror}") from error


def _start(word: str) -> Start | int:
    return Start.RUN if word == Start.RUN.value else _positive(word)


def _positive(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and int(word) >= 1):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1 up")
    return int(word)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of seconds")
    return seconds


def _name(word: str) -> str:
    try:
        return msgspec.convert(word, Station)
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{word!r} is no name of a station") from None
