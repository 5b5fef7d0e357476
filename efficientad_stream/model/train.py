"""A training from its first step to its last: checkpoints, the loss curve, the time budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.model.curve import CURVE_FILE, Curve
from efficientad_stream.model.settings import WARM_UP, Done, TrainSettings, plan_ahead
from efficientad_stream.model.trainer import Trainer

FLUSH_STEPS = 10
"""Losses are fetched from the device once in so many steps."""
RATE_STEPS = 50
"""The present rate is that of so many steps."""


class Progress(NamedTuple):
    """Reported every few steps; ``steps`` is None while the time budget has not decided it."""

    step: int
    steps: int | None
    losses: tuple[float, float, float, float]
    steps_per_s: float
    eta_s: float
    """Seconds to go: of the budget while it has not decided, then at the present rate."""


def train(
    trainer: Trainer,
    folder: Path,
    identity: dict[str, str],
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
    *,
    reserve_s: float = 0.0,
) -> bool:
    """Run ``trainer`` to its end, with checkpoints and the loss curve in ``folder``.

    Args:
        trainer: begun anew or resumed.
        folder: of the recipe.
        identity: what a resumed run must agree in.
        report: told how far it is.
        stop: asked after every step.
        reserve_s: of a time budget, what must be left for what follows.

    Returns:
        True at the end; False if ``stop`` said so before, in which case a checkpoint was written.

    Raises:
        FatalError: the loss is no longer a number.
        ArtifactError: the folder cannot be written.
    """
    settings, earlier = trainer.settings, trainer.done
    saved = before = time.monotonic()
    times: list[float] = []
    look_s = 0.0
    with Curve(folder / CURVE_FILE, earlier.steps) as curve:
        while trainer.done.steps != trainer.done.plan.total:
            alone = trainer.autoencoder_phase
            curve.add(trainer.step())
            now = time.monotonic()
            times.append(now - before)
            steps = trainer.done.steps + 1
            elapsed = earlier.seconds + now - trainer.began
            done = trainer.done._replace(steps=steps, seconds=elapsed)
            if done.plan.autoencoder is not None and len(times) == WARM_UP:
                look_s = trainer.look_seconds()
            trainer.done = plan_ahead(settings, done, times, reserve_s, look_s)
            trainer.look()
            if trainer.autoencoder_phase != alone:
                times.clear()
            halt, last = stop(), steps == trainer.done.plan.total
            before = time.monotonic()
            if halt or last or steps % FLUSH_STEPS == 0:
                newest = curve.flush(steps)
                report(_progress(settings, trainer.done, newest, times, reserve_s))
            if halt or last or now - saved >= settings.checkpoint_s:
                curve.flush(steps)
                with suppress(ArtifactError) if last else nullcontext():  # the recipe may still fit
                    trainer.save(folder, identity)
                saved = now
            if halt and not last:
                return False
    return True


def _progress(
    settings: TrainSettings,
    done: Done,
    newest: tuple[float, float, float, float],
    times: Sequence[float],
    reserve_s: float,
) -> Progress:
    each = mean(times[-RATE_STEPS:]) if times else 0.0
    total = done.plan.total
    if total is None:
        left = max(0.0, settings.seconds - done.seconds - reserve_s)
    else:
        left = (total - done.steps) * each
    return Progress(done.steps, total, newest, 1 / each if each else 0.0, left)
