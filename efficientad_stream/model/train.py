"""Training of one recipe: student and autoencoder, from images of good parts.

Source: arXiv 2303.14535, sections 3.2 to 3.4. Step k of a run draws its images, its augmentation
and its dropout from a generator seeded by (seed, k): a run that was interrupted and resumed ends
with the same weights as one that was not.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from efficientad_stream.core.errors import ArtifactError, ConfigError, FatalError
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.artifact import LoadedTeacher
from efficientad_stream.model.checkpoint import Done, load_checkpoint, save_checkpoint
from efficientad_stream.model.data import NaturalImages
from efficientad_stream.model.losses import JITTER_RANGE, JITTERS, Jitter, jitter, losses
from efficientad_stream.model.networks import TEACHER_CHANNELS, EfficientAD, Size

CHECKPOINT_FILE = "checkpoint.safetensors"
CURVE_FILE = "loss.csv"
CURVE_COLUMNS = ("step", "hard", "penalty", "autoencoder", "student_autoencoder")
FLUSH_STEPS = 10
"""Losses are fetched from the device once in so many steps."""
STATISTICS_BATCH = 4
SMALLEST_STD = 1e-6
"""A teacher channel that never changes on good parts must not be divided by zero."""


@dataclass(frozen=True)
class TrainSettings:
    """One training; the defaults are the paper's.

    Attributes:
        batch: good images a step.
        bfloat16: convolve in bfloat16; targets, losses and weights stay float32.
        checkpoint_s: seconds between checkpoints.
    """

    size: Size
    geometry: Geometry
    steps: int = 70_000
    batch: int = 1
    seed: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    checkpoint_s: float = 300.0
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    drop_at: float = 0.95
    """Share of the steps after which the learning rate is a tenth."""

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        dropped = step >= int(self.drop_at * self.steps)
        return self.learning_rate * (0.1 if dropped else 1.0)

    def identity(self) -> dict[str, str]:
        """All that changes the result; a resumed run must agree in it."""
        fields = {**asdict(self), **asdict(self.geometry)}
        return {k: str(v) for k, v in fields.items() if k not in ("geometry", "checkpoint_s")}


class Progress(NamedTuple):
    """Reported every few steps."""

    step: int
    steps: int
    losses: tuple[float, float, float, float]
    steps_per_s: float

    @property
    def eta_s(self) -> float:
        """Seconds to go."""
        return (self.steps - self.step) / self.steps_per_s if self.steps_per_s else 0.0


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


class Trainer:
    """The networks of one run, and where it stands."""

    def __init__(
        self,
        settings: TrainSettings,
        teacher: LoadedTeacher,
        good: Sequence[PixelArray],
        natural: NaturalImages | None,
    ) -> None:
        if teacher.size != settings.size:
            raise ConfigError(f"the teacher is of size {teacher.size}, not {settings.size}")
        self.settings, self._good, self._natural = settings, good, natural
        torch.manual_seed(settings.seed)
        net = EfficientAD(settings.size)
        net.teacher.load_state_dict(teacher.pdn.state_dict())
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # stub lacks it
        self.net = net.to(settings.device).train()
        trained = [*net.student.parameters(), *net.autoencoder.parameters()]
        self._optimizer = torch.optim.Adam(
            trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self._order: tuple[int, list[int]] = (-1, [])
        self.done = Done()

    @torch.no_grad()
    def measure_teacher(self, stop: Callable[[], bool]) -> bool:
        """Mean and deviation of each teacher channel over the good images (section 3.2).

        Returns:
            False if ``stop`` said so before the end.
        """
        sums = torch.zeros(2, TEACHER_CHANNELS, dtype=torch.float64)
        positions = 0
        device = self.settings.device
        for begin in range(0, len(self._good), STATISTICS_BATCH):
            if stop():
                return False
            rgb = self._rgb([self._good[i] for i in self._indices(begin)])
            with torch.autocast(device, torch.bfloat16, enabled=self.settings.bfloat16):
                out = self.net.teacher(self.net.normalise_input(rgb), padding=False)
            flat = out.double().transpose(0, 1).flatten(1)
            sums += torch.stack([flat.sum(1), flat.square().sum(1)]).cpu()
            positions += flat.shape[1]
        mean, square = sums / positions
        self.net.mean.copy_(mean)
        self.net.std.copy_((square - mean.square()).clamp_min(0).sqrt().clamp_min(SMALLEST_STD))
        return True

    def _indices(self, begin: int) -> range:
        return range(begin, min(begin + STATISTICS_BATCH, len(self._good)))

    def step(self) -> Tensor:
        """One optimiser step; returns the four losses, detached, on the device."""
        settings, step = self.settings, self.done.steps
        rng = np.random.default_rng((settings.seed, step))
        torch.manual_seed(int(rng.integers(1 << 62)))
        good = self._rgb([self._draw(step * settings.batch + i) for i in range(settings.batch)])
        kind = cast("Jitter", JITTERS[int(rng.integers(len(JITTERS)))])
        jittered = jitter(good, kind, float(rng.uniform(*JITTER_RANGE)))
        natural = None
        if self._natural is not None:
            natural = self._rgb([self._natural.draw(rng) for _ in range(settings.batch)])
        for group in self._optimizer.param_groups:
            group["lr"] = settings.rate_at(step)
        self._optimizer.zero_grad(set_to_none=True)
        parts = losses(self.net, good, jittered, natural, settings.bfloat16)
        parts.total().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return torch.stack(parts).detach()

    def save(self, folder: Path, identity: dict[str, str]) -> None:
        """Write a checkpoint into ``folder``."""
        path = folder / CHECKPOINT_FILE
        save_checkpoint(path, self.net, self._optimizer, identity, self.done)

    def load(self, folder: Path, identity: dict[str, str]) -> None:
        """Go on from the checkpoint in ``folder``."""
        self.done = load_checkpoint(folder / CHECKPOINT_FILE, self.net, self._optimizer, identity)

    def _draw(self, index: int) -> PixelArray:
        """The good image of one position in the run: all of them once before any comes again."""
        epoch, place = divmod(index, len(self._good))
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.settings.seed, 1 << 32, epoch))
            self._order = (epoch, rng.permutation(len(self._good)).tolist())
        return self._good[self._order[1][place]]

    def _rgb(self, images: Sequence[PixelArray]) -> Tensor:
        """Prepared images as N x 3 x H x W in [0, 1], channels last."""
        pixels = torch.from_numpy(np.stack(images)).to(self.settings.device)
        return pixels.permute(0, 3, 1, 2).float().div_(255)


def train(
    trainer: Trainer,
    folder: Path,
    identity: dict[str, str],
    report: Callable[[Progress], None],
    stop: Callable[[], bool],
) -> bool:
    """Run ``trainer`` to its end, with checkpoints and the loss curve in ``folder``.

    Returns:
        True at the end; False if ``stop`` said so before, in which case a checkpoint was written.

    Raises:
        FatalError: the loss is no longer a number.
        ArtifactError: the folder cannot be written.
    """
    settings = trainer.settings
    earlier, begin = trainer.done, time.monotonic()
    saved = begin
    with Curve(folder / CURVE_FILE, earlier.steps) as curve:
        while trainer.done.steps < settings.steps:
            row = trainer.step()
            now = time.monotonic()
            steps = trainer.done.steps + 1
            trainer.done = Done(steps, earlier.seconds + now - begin)
            curve.add(row)
            halt, last = stop(), steps == settings.steps
            if halt or last or steps % FLUSH_STEPS == 0:
                newest = curve.flush(steps)
                rate = (steps - earlier.steps) / (now - begin)
                report(Progress(steps, settings.steps, newest, rate))
            if halt or last or now - saved >= settings.checkpoint_s:
                curve.flush(steps)
                trainer.save(folder, identity)
                saved = now
            if halt and not last:
                return False
    return True


class Curve:
    """The losses of every step, in a CSV file that a resumed run continues."""

    def __init__(self, path: Path, steps: int) -> None:
        """Continue ``path`` after ``steps`` steps; what is beyond them is cut off."""
        self._waiting: list[Tensor] = []
        self._newest = (0.0, 0.0, 0.0, 0.0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text().splitlines()[1 : steps + 1] if steps and path.exists() else []
            self._file = path.open("w", newline="")
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from error
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(CURVE_COLUMNS)
        self._file.writelines(line + "\n" for line in lines)

    def __enter__(self) -> Curve:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: Tensor) -> None:
        """Take note of a step's losses without waiting for the device."""
        self._waiting.append(row)

    def flush(self, steps: int) -> tuple[float, float, float, float]:
        """Write what waits, the last of it being step ``steps``; returns the newest losses.

        Raises:
            FatalError: a loss is not a number.
        """
        if self._waiting:
            rows = torch.stack(self._waiting).cpu()
            first = steps - len(rows) + 1
            self._waiting.clear()
            for offset, row in enumerate(rows.tolist()):
                self._writer.writerow([first + offset, *(f"{value:.6g}" for value in row)])
            self._file.flush()
            if not torch.isfinite(rows).all():
                raise FatalError(
                    f"the loss is no longer a number before step {steps}; begin anew with "
                    "--precision fp32 or another --seed"
                )
            self._newest = tuple(rows[-1].tolist())
        return self._newest
