"""A training from its first step to its last: checkpoints, the loss curve, the time budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from efficientad_stream.model.curve import CURVE_FILE, Curve
from efficientad_stream.model.settings import plan_ahead
from efficientad_stream.model.trainer import Trainer

FLUSH_STEPS = 10
"""Losses are fetched from the device once in so many steps."""


class Progress(NamedTuple):
    """Reported every few steps; ``steps`` is None while the time budget has not decided it."""

    step: int
    steps: int | None
    losses: tuple[float, float, float, float]
    steps_per_s: float

    @property
    def eta_s(self) -> float:
        """Seconds to go, at the present rate."""
        left = (self.steps or self.step) - self.step
        return left / self.steps_per_s if self.steps_per_s else 0.0


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
    saved = before = begun = time.monotonic()
    times: list[float] = []
    with Curve(folder / CURVE_FILE, earlier.steps) as curve:
        while trainer.done.steps != trainer.done.plan.total:
            alone = trainer.autoencoder_phase
            curve.add(trainer.step())
            now = time.monotonic()
            times.append(now - before)
            steps = trainer.done.steps + 1
            elapsed = earlier.seconds + now - trainer.began
            done = trainer.done._replace(steps=steps, seconds=elapsed)
            trainer.done = plan_ahead(settings, done, times, reserve_s)
            trainer.look()
            if trainer.autoencoder_phase != alone:
                times.clear()
            halt, last = stop(), steps == trainer.done.plan.total
            before = time.monotonic()
            if halt or last or steps % FLUSH_STEPS == 0:
                newest = curve.flush(steps)
                rate = (steps - earlier.steps) / (now - begun)
                report(Progress(steps, trainer.done.plan.total, newest, rate))
            if halt or last or now - saved >= settings.checkpoint_s:
                curve.flush(steps)
                trainer.save(folder, identity)
                saved = now
            if halt and not last:
                return False
    return True
