"""The demo itself: a configuration, two processes, live verdicts, summary and picture."""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import msgspec

import efficientad_stream
from efficientad_stream import strict_yaml
from efficientad_stream.commands.demo import account, picture
from efficientad_stream.commands.demo.children import POLL_S, Child
from efficientad_stream.config import (
    Config,
    HeatmapConfig,
    JournalConfig,
    PublishConfig,
    RingConfig,
    SimulatedSource,
)
from efficientad_stream.core.errors import ArtifactError, ConfigError, FatalError
from efficientad_stream.core.messages import Decision
from efficientad_stream.core.text import decision_line
from efficientad_stream.sources.rendering.defects import LOGICAL
from efficientad_stream.sources.rendering.line import Line

RECIPE = Path(efficientad_stream.__file__).parent / "assets" / "demo_recipe"
CARDS = 6
RING_SLOTS = 64
"""Enough for a machine that is busy with other things half of the time; 59 MB."""
START_S = 90.0
"""Loading torch and the recipe may take this long on a slow disk."""
QUIET_S = 20.0
"""Longest silence between two verdicts, beyond the time in which none is due."""
LAST_S = 5.0
"""How long after the daemon's end its last verdicts may still be on their way."""


def run_demo(args: argparse.Namespace) -> int:
    """Run the line, then say and show what came of it; 0 if the promise was kept."""
    out = prepare(args.out)
    config = configure(args, out)
    path = out / "station.yaml"
    path.write_text(strict_yaml.dump(msgspec.to_builtins(config)), "utf-8")
    print(f"{args.parts} simulated parts; configuration {path}, log {out / 'daemon.log'}")
    print("loading the networks ...", flush=True)
    decisions: list[Decision] = []
    with _sigterm_interrupts():
        inspect(config, path, args.parts, decisions)
    print()
    for row in account.summary(decisions, args.fps):
        print(row)
    show(config, out, decisions)
    problems = account.problems(decisions, args.parts)
    for problem in problems:
        print(f"promise broken: {problem}", file=sys.stderr)
    if not problems:
        print("promise kept   one verdict for every part, seq without a gap")
    return 1 if problems else 0


def prepare(out: Path) -> Path:
    """The folder of results, without those of an earlier run.

    Raises:
        ConfigError: it cannot be made, or holds something else under our names.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("journal", "heatmaps"):
            if (out / name).exists():
                shutil.rmtree(out / name)
        (out / "demo.png").unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be used: {error.strerror or error}") from error
    return out.resolve()


def configure(args: argparse.Namespace, out: Path) -> Config:
    """The station's configuration, on ports that are free.

    Raises:
        ArtifactError: there is no recipe.
    """
    recipe = (args.recipe or RECIPE).resolve()
    if not (recipe / "recipe.yaml").is_file():
        raise ArtifactError(f"{recipe}: is not a recipe; give another one with --recipe")
    decisions, heatmaps, control = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
    return Config(
        station="demo",
        recipe=str(recipe),
        source=SimulatedSource(
            parts=args.parts, fps=args.fps, defect_rate=args.defect_rate, seed=args.seed
        ),
        publish=PublishConfig(decisions=decisions, heatmaps=heatmaps, control=control),
        heatmaps=HeatmapConfig(when="all", max_side=picture.PANEL[1], queue=100),
        journal=JournalConfig(path=str(out / "journal")),
        ring=RingConfig(slots=RING_SLOTS),
    )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody holds at the moment."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Meanwhile SIGTERM does what Ctrl-C does, so that no process is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def inspect(config: Config, path: Path, parts: int, decisions: list[Decision]) -> None:
    """Run daemon and ``watch`` until both have ended; prints and keeps each verdict as it comes.

    Raises:
        FatalError: one of the two failed, or nothing came for too long.
    """
    out = path.parent
    with (
        Child("watch", watching(config.publish, out), out / "watch.log") as watch,
        Child("the daemon", ["run", str(path)], out / "daemon.log") as daemon,
    ):
        period_s = 1 / config.source.fps if config.source.fps else 0.0
        for line in listen(watch, daemon, QUIET_S + period_s):
            decisions.append(account.read(line))
            shown = decision_line(decisions[-1], sys.stdout.isatty())
            print(f"{len(decisions):>5}/{parts}{shown}", flush=True)
        for child in (daemon, watch):
            child.expect_success()


def watching(where: PublishConfig, out: Path) -> list[str]:
    """Arguments of the ``watch`` that stands beside the daemon."""
    return [
        *("watch", where.decisions, "--heatmaps", where.heatmaps, "--control", where.control),
        *("--json", "--all", "--exit-on-stop", "--save-heatmaps", str(out / "heatmaps")),
    ]


def listen(watch: Child, daemon: Child, quiet_s: float) -> Iterator[str]:
    """What ``watch`` prints, until it ends; it does so when the daemon says goodbye.

    Raises:
        FatalError: the daemon has gone without a goodbye, or nothing comes.
    """
    patience_s, heard = START_S, time.monotonic()
    gone: float | None = None
    while watch.running:
        for line in watch.lines(POLL_S):
            patience_s, heard = quiet_s, time.monotonic()
            yield line
        now = time.monotonic()
        if gone is None and not daemon.running:
            daemon.expect_success()
            gone = now
        if gone is not None and now - gone > LAST_S:
            raise FatalError("the daemon has ended, and watch did not notice")
        if now - heard > patience_s:
            raise FatalError(f"no verdict for {patience_s:.0f} s; see {daemon.log}")
    yield from watch.lines(0)


def show(config: Config, out: Path, decisions: Sequence[Decision]) -> None:
    """Draw the picture of those parts whose heatmap has arrived, and say where it is."""
    assert isinstance(config.source, SimulatedSource)
    saved = {int(path.stem.partition("_")[0]): path for path in (out / "heatmaps").iterdir()}
    drawable = [decision for decision in decisions if decision.header.seq in saved]
    chosen = account.choose(drawable, LOGICAL, CARDS)
    if not chosen:
        print("picture        none: no heatmap arrived")
        return
    line = Line(config.source)
    parts = [
        picture.Shown(
            decision,
            line.render(account.index(decision)).frame,
            picture.read_heatmap(saved[decision.header.seq]),
        )
        for decision in chosen
    ]
    picture.save(out / "demo.png", picture.draw(parts))
    print(f"picture        {out / 'demo.png'}")
