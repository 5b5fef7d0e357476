"""From a folder of good parts to a recipe on disk: what ``efficientad-stream train`` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import torch

from efficientad_stream import __version__
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.recipe import Geometry, Recipe, ThresholdChoice
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.artifact import (
    LoadedTeacher,
    default_teacher,
    load_teacher,
    refuse_overwrite,
    round_to_half,
    save_recipe,
)
from efficientad_stream.model.calibrate import Calibration, calibrate, scoring_seconds, split
from efficientad_stream.model.data import GoodImages, Subset, load_good
from efficientad_stream.model.files import clear_leftovers, exclusive
from efficientad_stream.model.frames import inspected
from efficientad_stream.model.losses import P_HARD
from efficientad_stream.model.naturals import NaturalImages, Naturals
from efficientad_stream.model.networks import EfficientAD, Size
from efficientad_stream.model.procedural.images import ProceduralImages
from efficientad_stream.model.provenance import shown, user
from efficientad_stream.model.settings import (
    Method,
    TrainSettings,
    choose_bfloat16,
    choose_device,
)
from efficientad_stream.model.train import Progress, train
from efficientad_stream.model.trainer import CHECKPOINT_FILE, Trainer
from efficientad_stream.model.video import FrameRange

Builtin = Literal["builtin"]


@dataclass(frozen=True)
class TrainJob:
    """Everything that a training is asked for.

    Attributes:
        images: folder of good images, or a video.
        natural: folder of photographs for the penalty; "builtin": drawn images; None: no penalty.
        out: folder of the recipe.
        teacher: file; None: the one that comes with the package.
        frames: of a video, which.
        limit: use so many good images at most; 0: all.
        method, steps, autoencoder_steps, seconds, augment, patience, p_hard: see
            ``settings.TrainSettings``.
        false_rejects: share of good parts that the threshold may cost.
        device, precision: see ``choose_device`` and ``choose_bfloat16``.
    """

    images: Path
    natural: Path | Builtin | None
    out: Path
    name: str
    geometry: Geometry
    revision: int = 1
    size: Size = "S"
    method: Method = "fast"
    steps: int = 0
    autoencoder_steps: int = 0
    seconds: float = 0.0
    augment: tuple[str, ...] = ()
    batch: int = 1
    patience: int = 0
    p_hard: float = P_HARD
    seed: int = 0
    teacher: Path | None = None
    frames: FrameRange | None = None
    limit: int = 0
    false_rejects: float = 1e-3
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Listener:
    """Whoever waits for a training.

    Attributes:
        say: told a line now and then.
        report: told the losses every few steps.
        stop: asked after every step whether to stop.
    """

    say: Callable[[str], None]
    report: Callable[[Progress], None]
    stop: Callable[[], bool]


def make_recipe(job: TrainJob, listener: Listener) -> Recipe | None:
    """Train, calibrate and write a recipe; an interrupted run of the same job is continued.

    Returns:
        The recipe, or None if ``listener`` asked to stop before the end.

    Raises:
        ArtifactError: images, teacher or folder are not what they should be.
        ConfigError: the job cannot be done as asked.
        FatalError: the loss is no longer a number.
    """
    with _folder(job.out), exclusive(job.out):
        return _make_recipe(job, listener)


def _make_recipe(job: TrainJob, listener: Listener) -> Recipe | None:
    say = listener.say
    clear_leftovers(job.out)
    teacher = load_teacher(job.teacher) if job.teacher else default_teacher(job.size)
    good = load_good(job.images, job.geometry, job.frames, job.limit)
    warning = good.size_warning(job.geometry)
    if warning:
        say(f"warning: {job.images}: {warning}")
    natural = _naturals(job)
    learn, held = split(len(good), job.seed, good.in_order)
    unseen = Subset(good, held)
    trainer = Trainer(_settings(job), teacher, Subset(good, learn), natural, unseen)
    identity = {
        **trainer.settings.identity(),
        "teacher": teacher.sha256,
        "good images": good.digest,
        "photographs": natural.digest if natural else "none",
    }
    say(_plan(trainer.settings, len(learn), len(held), natural))
    if not _learn(trainer, unseen, job.out, identity, listener):
        return None
    if natural is not None and natural.unreadable:
        say(f"warning: {len(natural.unreadable)} photographs could not be read")
    net = trainer.net.cpu().eval()
    round_to_half(net)
    say(f"calibrating on {len(held)} held-back parts")
    found = calibrate(net, unseen, job.false_rejects, inspected(job.geometry))
    recipe = _save(job, net, found, _notes(job, trainer, good, teacher, found))
    (job.out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return recipe


def _naturals(job: TrainJob) -> Naturals | None:
    if job.natural == "builtin":
        return ProceduralImages(job.geometry)
    return NaturalImages(job.natural, job.geometry) if job.natural else None


def _settings(job: TrainJob) -> TrainSettings:
    device = choose_device(job.device)
    return TrainSettings(
        size=job.size,
        geometry=job.geometry,
        method=job.method,
        steps=job.steps,
        autoencoder_steps=job.autoencoder_steps,
        seconds=job.seconds,
        augment=job.augment,
        batch=job.batch,
        patience=job.patience,
        p_hard=job.p_hard,
        seed=job.seed,
        device=device,
        bfloat16=choose_bfloat16(job.precision, device),
    )


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The recipe's folder; if nothing came of it, none is left."""
    refuse_overwrite(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be made: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # not empty: there is something to keep
            folder.rmdir()


def _plan(settings: TrainSettings, learn: int, held: int, natural: Naturals | None) -> str:
    kind = "bfloat16" if settings.bfloat16 else "float32"
    steps = f"{settings.autoencoder_steps} + {settings.steps} steps"
    if settings.method == "paper":
        steps = f"{settings.steps} steps"
    if settings.seconds:
        steps = f"{settings.seconds / 60:.0f} minutes"
    return (
        f"{learn} good images to learn from, {held} held back, "
        f"{len(natural) if natural else 'no'} images for the penalty; {steps} on "
        f"{settings.device} in {kind}{_share(settings.geometry)}"
    )


def _share(geometry: Geometry) -> str:
    """How much of the input counts, if not all of it."""
    counts = inspected(geometry)
    return "" if counts is None else f"; {100 * counts.mean():.0f} % of the input is inspected"


def _learn(
    trainer: Trainer,
    held: Sequence[PixelArray],
    folder: Path,
    identity: dict[str, str],
    listener: Listener,
) -> bool:
    """Begin, or go on from a checkpoint; False if stopped."""
    if (folder / CHECKPOINT_FILE).exists():
        trainer.load(folder, identity)
        listener.say(f"going on after step {trainer.done.steps}")
    else:
        listener.say("describing the good images")
        if not trainer.features.measure(listener.stop):
            return False
    reserve = len(held) * scoring_seconds(trainer.net, held[0]) if trainer.settings.seconds else 0.0
    return train(trainer, folder, identity, listener.report, listener.stop, reserve_s=reserve)


def _save(
    job: TrainJob, net: EfficientAD, found: Calibration, notes: dict[str, str | int | float]
) -> Recipe:
    choice = ThresholdChoice(
        value=found.tail.threshold,
        method=f"good_tail(false_rejects={job.false_rejects:g})",
        data=f"scores of {len(found.scores)} held-back good parts of {shown(job.images)}",
        good_parts=len(found.scores),
    )
    recipe = Recipe(
        name=job.name,
        revision=job.revision,
        size=job.size,
        geometry=job.geometry,
        quantiles=found.quantiles,
        threshold=choice,
        model_sha256="",
        training=notes,
    )
    return save_recipe(job.out, recipe, net)


def _notes(
    job: TrainJob,
    trainer: Trainer,
    good: GoodImages,
    teacher: LoadedTeacher,
    found: Calibration,
) -> dict[str, str | int | float]:
    """For people: who, when, on what."""
    return {
        "created": datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds"),
        "by": user(),
        "version": __version__,
        "torch": str(torch.__version__),
        "method": job.method,
        "steps": trainer.done.plan.student or 0,
        "autoencoder_steps": trainer.done.plan.autoencoder or 0,
        "stopped_early": "no" if trainer.done.plan.anneal is None else "yes",
        "augment": ",".join(job.augment) or "none",
        "batch": job.batch,
        "seed": job.seed,
        "seconds": round(trainer.done.seconds),
        "device": trainer.settings.device,
        "precision": "bf16" if trainer.settings.bfloat16 else "fp32",
        "teacher_sha256": teacher.sha256,
        "images": shown(job.images) + (f" {job.frames}" if job.frames else ""),
        "good_images": len(good),
        "good_images_sha256": good.digest,
        "held_back": len(found.scores),
        "held_back_worst_score": found.tail.worst,
        "penalty": _penalty(job),
        "quantiles": "exact" if found.exact else "histogram",
    }


def _penalty(job: TrainJob) -> str:
    if job.natural == "builtin":
        return "procedural images"
    return "natural images" if job.natural else "none"
