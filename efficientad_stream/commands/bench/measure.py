"""Timing: candidates in turn, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from efficientad_stream.commands.bench.candidates import PLAIN, Candidate
from efficientad_stream.core.types import PixelArray, Scores

WARM_UP = 2
ROOF_SIDE = 1536
ROOF_RUNS = 8
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One candidate in one setting; times of a batch, host to host."""

    name: str
    model: str
    size: str
    batch: int
    precision: str
    threads: int
    frame: str
    rounds: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    fps: float
    ratio_to_eager: float | None
    """How often as fast as the plain network, by the medians of the same run."""
    roof_share: float
    """Operations of the definition a second, of those of a matrix product; Winograd may pass 1."""
    score_error: float
    """Largest difference to the plain network's scores, relative."""
    map_error: float
    """Largest difference to the plain network's map, of the map's maximum."""


def roof(threads: int) -> float:
    """Operations a second of a large product of matrices in single precision: the best of some."""
    torch.set_num_threads(threads)
    a = torch.rand(ROOF_SIDE, ROOF_SIDE)
    b = torch.rand(ROOF_SIDE, ROOF_SIDE)
    seconds = [_seconds(lambda: torch.mm(a, b)) for _ in range(ROOF_RUNS)]
    return float(2 * ROOF_SIDE**3 / min(seconds))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def interleaved(
    candidates: Sequence[Candidate],
    batches: Sequence[Sequence[PixelArray]],
    rounds: int,
    go_on: Callable[[int], bool],
) -> dict[str, list[float]]:
    """Seconds of each round by name; each round is all candidates, on the same batch.

    Before each round but the first ones ``go_on`` is asked with its number; False ends it early.
    """
    for candidate in candidates:
        for _ in range(WARM_UP):
            candidate.score(batches[0])
    found: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for index in range(rounds):
        if index >= FEWEST_ROUNDS and not go_on(index):
            break
        batch = batches[index % len(batches)]
        for candidate in candidates:
            found[candidate.name].append(_seconds(lambda: candidate.score(batch)))  # noqa: B023
    return found


def errors(found: Sequence[Scores], wanted: Sequence[Scores]) -> tuple[float, float]:
    """Largest relative difference of scores, and of maps by their maximum."""
    of_scores = of_maps = 0.0
    for one, other in zip(found, wanted, strict=True):
        of_scores = max(of_scores, abs(one.score - other.score) / abs(other.score))
        assert one.anomaly_map is not None
        assert other.anomaly_map is not None
        gap = np.abs(one.anomaly_map - other.anomaly_map).max()
        of_maps = max(of_maps, float(gap / np.abs(other.anomaly_map).max()))
    return of_scores, of_maps


def ratio(times: dict[str, list[float]], name: str) -> float | None:
    """The plain network's median over this one's; None where it did not run."""
    if PLAIN not in times:
        return None
    return float(np.median(times[PLAIN]) / np.median(times[name]))
