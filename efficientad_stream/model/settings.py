"""What a training is asked for, and how its steps are laid out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.geometry import Geometry
from efficientad_stream.core.placement import STRIDE
from efficientad_stream.core.types import MAP_BORDER
from efficientad_stream.model.losses import P_HARD
from efficientad_stream.model.networks import Size
from efficientad_stream.model.plateau import CHECK_STEPS, Plateau

Method = Literal["fast", "paper"]
WARM_UP = 20
"""Steps of each phase whose rate does not depend on how many steps follow; they are timed, where a
time budget decides how many that will be."""
AUTOENCODER_SHARE = 0.3
"""Of a time budget."""
AUTOENCODER_MOST, STUDENT_MOST = 10_000, 70_000
ANNEAL_SHARE = 0.1
"""Of the student's steps so far: what a run that is stopped early still does, the rate falling."""


@dataclass(frozen=True)
class TrainSettings:
    """One training.

    Attributes:
        method: "paper": whole images, student and autoencoder from random weights together, the
            learning rate falling once (sections 3.2 to 3.4). "fast": the autoencoder first, against
            descriptors that are computed once; then the student, begun in closed form
            (``closed_form``) and trained on windows, the rate along a cosine.
        steps: in which the student learns; 0 if ``seconds`` says.
        autoencoder_steps: "fast": steps of the autoencoder before that; 0 if ``seconds`` says.
        seconds: time budget for everything; 0 for none.
        batch: good images a step.
        window: "fast": side in pixels of what the student sees of an image at a step. The student
            pads nothing, so what it says of a window is exactly what it says there of the image.
        augment: kinds of ``augment`` done to the good images.
        p_hard: mining factor of section 3.2; 0 for a plain mean.
        bfloat16: convolve in bfloat16; targets, losses and weights stay float32.
        patience: looks at the held-back images without a gain before the student is stopped early,
            one look in ``CHECK_STEPS`` steps; 0: never, as in the paper.
        checkpoint_s: seconds between checkpoints.
        drop_at: "paper": share of the steps after which the learning rate is a tenth.
    """

    size: Size
    geometry: Geometry
    steps: int = 70_000
    batch: int = 1
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    checkpoint_s: float = 300.0
    method: Method = "paper"
    autoencoder_steps: int = 0
    seconds: float = 0.0
    window: int = 128
    augment: tuple[str, ...] = ()
    p_hard: float = P_HARD
    patience: int = 0
    learning_rate: float = 1e-4
    autoencoder_rate: float = 1e-3
    weight_decay: float = 1e-5
    drop_at: float = 0.95

    def identity(self) -> dict[str, str]:
        """All that changes the result; a resumed run must agree in it."""
        fields = {**asdict(self), **asdict(self.geometry)}
        left_out = ("geometry", "checkpoint_s", "mask")  # the mask is known by its hash
        return {k: str(v) for k, v in fields.items() if k not in left_out}


class Plan(NamedTuple):
    """How many steps there are of each phase; None: the time budget has not decided yet."""

    autoencoder: int | None
    student: int | None
    anneal: int | None = None
    """The student's step at which it was decided to stop early; None: it was not."""
    anneal_rate: float = 0.0
    """The learning rate at that step."""

    @classmethod
    def of(cls, settings: TrainSettings) -> Plan:
        """As far as the settings say."""
        if settings.method == "paper":
            return cls(0, settings.steps or None)
        return cls(settings.autoencoder_steps or None, settings.steps or None)

    @property
    def total(self) -> int | None:
        """Steps of both phases."""
        if self.autoencoder is None or self.student is None:
            return None
        return self.autoencoder + self.student


class Done(NamedTuple):
    """How far a training has come: steps, the seconds that they took, what is planned and seen."""

    steps: int = 0
    seconds: float = 0.0
    plan: Plan = Plan(0, None)
    plateau: Plateau = Plateau()

    @property
    def student_steps(self) -> int:
        """Steps after those of the autoencoder alone, as far as these are planned."""
        return self.steps - (self.plan.autoencoder or 0)


class Window(NamedTuple):
    """The part of an image that the student sees at a step, in positions of the map."""

    top: int
    left: int
    rows: int
    columns: int

    @classmethod
    def draw(cls, geometry: Geometry, side: int, rng: np.random.Generator) -> Window:
        """At random; drawn beyond the edges and moved inside, or these would hardly be seen."""
        places = []
        for size, whole in zip((geometry.height, geometry.width), geometry.map_size, strict=True):
            count = min(side, size) // STRIDE - 2 * MAP_BORDER
            room = whole - count
            first = int(rng.integers(-(count // 2), room + count // 2 + 1))
            places.append((min(max(first, 0), room), count))
        (top, rows), (left, columns) = places
        return cls(top, left, rows, columns)

    def of_input(self, x: Tensor) -> Tensor:
        """The pixels that the positions of the window are computed from."""
        high, wide = ((n + 2 * MAP_BORDER) * STRIDE for n in (self.rows, self.columns))
        y, left = self.top * STRIDE, self.left * STRIDE
        return x[:, :, y : y + high, left : left + wide]

    def of_output(self, x: Tensor) -> Tensor:
        """Those positions of a map or of descriptors."""
        return x[:, :, self.top : self.top + self.rows, self.left : self.left + self.columns]


def plan_ahead(
    settings: TrainSettings,
    done: Done,
    times: Sequence[float],
    reserve_s: float,
    look_s: float = 0.0,
) -> Done:
    """Decide how many steps a phase has, once its first ``WARM_UP`` steps have been timed.

    From then on the number stands, and with it the result: the same number given as steps, or a run
    that is interrupted and resumed, ends with the same weights.

    Args:
        settings: with the time budget.
        done: with the plan so far.
        times: seconds of the newest steps of this phase.
        reserve_s: what must be left of the budget at the end.
        look_s: what a look at the held-back images takes.
    """
    plan = done.plan
    if not settings.seconds or plan.total is not None or len(times) < WARM_UP:
        return done
    each = median(times[-WARM_UP:])
    left = settings.seconds - done.seconds - reserve_s
    if plan.autoencoder is None:
        most = max(WARM_UP, int(AUTOENCODER_SHARE * left / each))
        return done._replace(plan=Plan(min(most, AUTOENCODER_MOST), plan.student))
    each += look_s / CHECK_STEPS
    steps = done.student_steps + max(0, int(left / each))
    return done._replace(plan=Plan(plan.autoencoder, min(steps, STUDENT_MOST)))


def look_is_due(settings: TrainSettings, done: Done) -> bool:
    """Is it time to look at the held-back images? Not once it has been decided to stop."""
    if not settings.patience or done.plan.total is None or done.plan.anneal is not None:
        return False
    if done.student_steps <= 0:
        return False
    return done.student_steps % CHECK_STEPS == 0


def after_look(settings: TrainSettings, done: Done, loss: float) -> Done:
    """Take in a look; if nothing has been gained for too long, plan for an end soon.

    A tenth of the steps so far is still to come: at a tenth of the rate, as at the end of section
    3.2 ("paper"), or along a cosine from the present rate to 0 ("fast"). Nothing changes if the end
    is nearer than that.
    """
    done, plan = done._replace(plateau=done.plateau.after(loss)), done.plan
    if done.plateau.since < settings.patience or plan.student is None:
        return done
    here = done.student_steps
    sooner = here + max(WARM_UP, math.ceil(ANNEAL_SHARE * here))
    if sooner >= plan.student:
        return done
    rate = rate_at(settings, plan, done.steps)
    return done._replace(plan=plan._replace(student=sooner, anneal=here, anneal_rate=rate))


def rate_at(settings: TrainSettings, plan: Plan, step: int) -> float:
    """The learning rate of a step, counted from 0 over both phases."""
    if settings.method == "paper":
        drop = None if plan.student is None else int(settings.drop_at * plan.student)
        drop = drop if plan.anneal is None else plan.anneal
        return settings.learning_rate * (0.1 if drop is not None and step >= drop else 1.0)
    if plan.anneal is not None and plan.student is not None:
        share = (step - (plan.autoencoder or 0) - plan.anneal) / (plan.student - plan.anneal)
        return plan.anneal_rate * (1 + math.cos(math.pi * share)) / 2
    if plan.autoencoder is None or step < plan.autoencoder:
        return settings.autoencoder_rate * _cosine(step, plan.autoencoder)
    return settings.learning_rate * _cosine(step - plan.autoencoder, plan.student)


def _cosine(step: int, steps: int | None) -> float:
    """From 0 up to 1 in ``WARM_UP`` steps, then along a cosine to 0; None: not known yet."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    if steps is None:
        return 1.0
    return (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP))) / 2


def choose_device(wanted: str) -> str:
    """The device for "auto", "cpu" or "cuda".

    Raises:
        ConfigError: there is no such device here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no CUDA device here; use --device cpu")
    return wanted


def choose_bfloat16(wanted: str, device: str) -> bool:
    """Whether to convolve in bfloat16, for "auto", "fp32" or "bf16".

    "auto" does so where the processor multiplies bfloat16 itself: three to four times faster on
    AMX, and the teacher's outputs change by 2e-5 of their variance.
    """
    if wanted != "auto":
        return wanted == "bf16"
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))
