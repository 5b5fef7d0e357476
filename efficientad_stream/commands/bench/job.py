"""The whole benchmark: each setting in turn, then the reports."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from efficientad_stream.backends.native import library
from efficientad_stream.backends.native.library import NativeUnavailableError
from efficientad_stream.backends.processor import thread_count
from efficientad_stream.commands.bench import ENGINES, MOST_SIDE, report
from efficientad_stream.commands.bench.candidates import (
    Candidate,
    PlainNetwork,
    make_candidates,
    random_recipe,
)
from efficientad_stream.commands.bench.measure import Row, errors, interleaved, ratio, roof
from efficientad_stream.config import BackendKind
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.types import PixelArray
from efficientad_stream.longwork import INTERRUPTED, StopFlag, Ticker
from efficientad_stream.model.artifact import LoadedRecipe, load_recipe
from efficientad_stream.model.data import list_images, read_image, spread
from efficientad_stream.model.operations import operations

FRAMES = 16
"""Different frames that are scored in turn."""


def bench(args: argparse.Namespace) -> int:
    """Measure, print, write.

    Raises:
        ConfigError: an argument is wrong, or asks for what is not there.
    """
    engines = _engines(args.backends)
    recipes = list(_recipes(args))
    with StopFlag() as stop:
        work = Bench(args, engines, stop)
        for loaded in recipes:
            for batch in args.batches:
                if not stop.asked():
                    work.measure(loaded, batch)
    report.write(args, work.rows, work.threads, work.peak)
    return INTERRUPTED if stop.asked() else 0


class Bench:
    """Measures one setting after the other, on one machine with one number of threads."""

    def __init__(
        self, args: argparse.Namespace, engines: Sequence[BackendKind], stop: StopFlag
    ) -> None:
        self._args, self._engines, self._stop = args, engines, stop
        self._ticker = Ticker()
        self.threads = thread_count(args.threads)
        self.peak = roof(self.threads)
        self.rows: list[Row] = []

    def measure(self, loaded: LoadedRecipe, batch: int) -> None:
        """All candidates with one recipe and batch, in turn; a row each."""
        frames = _frames(self._args, loaded)
        batches = [
            [frames[(i + j) % len(frames)] for j in range(batch)] for i in range(len(frames))
        ]
        wanted = PlainNetwork(loaded, self.threads).score(batches[0])
        compare = self._args.compare
        candidates = make_candidates(self._engines, loaded, self.threads, batch, compare)
        try:
            exact = {one.name: errors(one.score(batches[0]), wanted) for one in candidates}
            times = self._time(candidates, batches, _label(loaded, batch))
        finally:
            for one in candidates:
                one.close()
        self.rows += self._rows(loaded, frames[0], batch, times, exact)

    def _time(
        self, candidates: Sequence[Candidate], batches: Sequence[list[PixelArray]], label: str
    ) -> dict[str, list[float]]:
        def go_on(index: int) -> bool:
            if self._ticker.due():
                self._ticker.tick(f"{label}: round {index} of {self._args.rounds}")
            return not self._stop.asked()

        times = interleaved(candidates, batches, self._args.rounds, go_on)
        self._ticker.say(f"{label}: {len(times[candidates[0].name])} rounds")
        return times

    def _rows(
        self,
        loaded: LoadedRecipe,
        frame: PixelArray,
        batch: int,
        times: dict[str, list[float]],
        exact: dict[str, tuple[float, float]],
    ) -> Iterator[Row]:
        geometry, size = loaded.recipe.geometry, loaded.net.teacher.size
        work = operations(size, geometry.height, geometry.width) * batch
        seen, into = f"{frame.shape[0]}x{frame.shape[1]}", f"{geometry.height}x{geometry.width}"
        for name, seconds in times.items():
            p50, p99, p999 = (float(np.quantile(seconds, q)) for q in (0.5, 0.99, 0.999))
            yield Row(
                name, size, into, batch, "fp32", self.threads, seen, len(seconds),
                1e3 * p50, 1e3 * p99, 1e3 * p999, batch / p50, ratio(times, name),
                work / p50 / self.peak, *exact[name],
            )  # fmt: skip


def _label(loaded: LoadedRecipe, batch: int) -> str:
    geometry = loaded.recipe.geometry
    return f"{loaded.recipe.size} {geometry.height}x{geometry.width} batch {batch}"


def _engines(asked: Sequence[BackendKind] | None) -> list[BackendKind]:
    try:
        library.load()
    except NativeUnavailableError as error:
        if asked and "cpu" in asked:
            raise ConfigError(f"--backends cpu: {error}") from error
        return [name for name in asked or ENGINES if name != "cpu"]
    return list(dict.fromkeys(asked or ENGINES))


def _recipes(args: argparse.Namespace) -> Iterator[LoadedRecipe]:
    if args.recipe is not None:
        yield load_recipe(args.recipe)
        return
    for size in dict.fromkeys(args.sizes):
        for text in dict.fromkeys(args.inputs):
            yield random_recipe(size, text)


def _frames(args: argparse.Namespace, loaded: LoadedRecipe) -> list[PixelArray]:
    """What the camera sees: images of a folder, or noise, at ``--frame``."""
    geometry = loaded.recipe.geometry
    if args.images is not None:
        paths = list_images(args.images)
        return [read_image(paths[i], geometry.channels) for i in spread(len(paths), FRAMES)]
    size = _frame_size(args.frame) or geometry.frame or (geometry.height, geometry.width)
    rng = np.random.default_rng(0)
    shape = (*size, 3) if geometry.channels == 3 else size
    return [rng.integers(0, 256, shape, np.uint8) for _ in range(4)]


def _frame_size(text: str) -> tuple[int, int] | None:
    sides = text.lower().split("x") if text else []
    if not sides:
        return None
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise ConfigError(f"--frame {text}: give HEIGHTxWIDTH, e.g. 1944x2592")
    height, width = map(int, sides)
    if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE):
        raise ConfigError(f"--frame {text}: sides must lie between 1 and {MOST_SIDE}")
    return height, width
