"""The steps of a training: student and autoencoder, from images of good parts.

Source: arXiv 2303.14535, sections 3.2 to 3.4; ``settings.TrainSettings`` says what the method
"fast" does otherwise. Step k of a run draws its images, its augmentation and its dropout from a
generator seeded by (seed, k): a run that was interrupted and resumed ends with the same weights as
one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.artifact import LoadedTeacher
from efficientad_stream.model.augment import augment
from efficientad_stream.model.checkpoint import load_checkpoint, save_checkpoint
from efficientad_stream.model.closed_form import Pair, begin_student, solve_student
from efficientad_stream.model.features import TeacherFeatures, to_rgb
from efficientad_stream.model.frames import blank_of, inspected
from efficientad_stream.model.losses import JITTER_RANGE, JITTERS, Jitter, Views, jitter, losses
from efficientad_stream.model.naturals import Naturals
from efficientad_stream.model.networks import EfficientAD
from efficientad_stream.model.plateau import held_back_loss
from efficientad_stream.model.settings import (
    Done,
    Plan,
    TrainSettings,
    Window,
    after_look,
    look_is_due,
    rate_at,
)

CHECKPOINT_FILE = "checkpoint.safetensors"
SOLVED_IMAGES = 240
"""Good images that the student is begun on, at most."""
SOLVED_POSITIONS = 32_000
"""Positions of all of them together."""
SCALING_IMAGES, SCALING_SIDE = 6, 256
"""Images that the random layers are scaled by, and pixels of each along a side, at most."""
WINDOW_DRAWS = 10


class Trainer:
    """The networks of one run, and where it stands."""

    def __init__(
        self,
        settings: TrainSettings,
        teacher: LoadedTeacher,
        good: Sequence[PixelArray],
        natural: Naturals | None,
        held: Sequence[PixelArray] = (),
    ) -> None:
        if teacher.size != settings.size:
            raise ConfigError(f"the teacher is of size {teacher.size}, not {settings.size}")
        self.began = time.monotonic()
        self.settings, self._good, self._natural = settings, good, natural
        self._held = held
        counts = inspected(settings.geometry)
        self._inspected = None if counts is None else torch.tensor(counts, device=settings.device)
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
        self.features = TeacherFeatures(
            net, good, settings.device, bfloat16=settings.bfloat16, inspected=self._inspected
        )
        self.done = Done(plan=Plan.of(settings))

    @property
    def autoencoder_phase(self) -> bool:
        """Is the next step one of the autoencoder alone?"""
        first = self.done.plan.autoencoder
        return first is None or self.done.steps < first

    def step(self) -> Tensor:
        """One optimiser step; returns the four losses, detached, on the device."""
        settings, done = self.settings, self.done
        if settings.method == "fast" and done.steps == done.plan.autoencoder:
            self._begin_student()
        rng = np.random.default_rng((settings.seed, done.steps))
        torch.manual_seed(int(rng.integers(1 << 62)))
        for group in self._optimizer.param_groups:
            group["lr"] = rate_at(settings, done.plan, done.steps)
        self._optimizer.zero_grad(set_to_none=True)
        drawn = [self._draw(done.steps * settings.batch + i) for i in range(settings.batch)]
        if self.autoencoder_phase:
            loss = self._autoencoder_loss(drawn, rng)
            row = torch.stack([loss.new_zeros(()), loss.new_zeros(()), loss, loss.new_zeros(())])
        else:
            view = self._window_view if settings.method == "fast" else self._paper_view
            parts = losses(self.net, view(drawn, rng), settings.p_hard, settings.bfloat16)
            loss, row = parts.total(), torch.stack(parts)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return row.detach()

    def look(self) -> None:
        """See whether the student still gains on good images that it does not learn from."""
        s = self.settings
        if self._held and look_is_due(s, self.done):
            self.done = after_look(s, self.done, self._held_back_loss())

    def look_seconds(self) -> float:
        """What a look takes, measured; 0 if there will be none."""
        if not self._held or not self.settings.patience:
            return 0.0
        begun = time.monotonic()
        self._held_back_loss()
        return time.monotonic() - begun

    def save(self, folder: Path, identity: dict[str, str]) -> None:
        """Write a checkpoint into ``folder``."""
        path = folder / CHECKPOINT_FILE
        save_checkpoint(path, self.net, self._optimizer, identity, self.done)

    def load(self, folder: Path, identity: dict[str, str]) -> None:
        """Go on from the checkpoint in ``folder``."""
        self.done = load_checkpoint(folder / CHECKPOINT_FILE, self.net, self._optimizer, identity)

    def _draw(self, index: int) -> int:
        """The good image of one position in the run: all of them once before any comes again."""
        epoch, place = divmod(index, len(self._good))
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.settings.seed, 1 << 32, epoch))
            self._order = (epoch, rng.permutation(len(self._good)).tolist())
        return self._order[1][place]

    def _held_back_loss(self) -> float:
        s = self.settings
        return held_back_loss(self.net, self._held, s.device, self._inspected, bfloat16=s.bfloat16)

    def _good_images(self, drawn: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Good images as the line may deliver them; what is not inspected stays blank."""
        images = [augment(self._good[i], self.settings.augment, rng) for i in drawn]
        blank = blank_of(self.settings.geometry) if self.settings.augment else None
        if blank is not None:
            for image in images:
                cv2.copyTo(blank.grey, blank.hidden, image)
        return self._rgb(images)

    def _rgb(self, images: Sequence[PixelArray]) -> Tensor:
        return to_rgb(images, self.settings.device)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.settings.device, torch.bfloat16, enabled=self.settings.bfloat16)

    def _jittered(self, rgb: Tensor, rng: np.random.Generator) -> Tensor:
        kind = cast("Jitter", JITTERS[int(rng.integers(len(JITTERS)))])
        return self.net.normalise_input(jitter(rgb, kind, float(rng.uniform(*JITTER_RANGE))))

    def _naturals(self, rng: np.random.Generator) -> Tensor | None:
        if self._natural is None:
            return None
        drawn = [self._natural.draw(rng) for _ in range(self.settings.batch)]
        return self.net.normalise_input(self._rgb(drawn))

    def _autoencoder_loss(self, drawn: Sequence[int], rng: np.random.Generator) -> Tensor:
        """Of predicting the descriptors of good images from jittered copies."""
        good = self._good_images(drawn, rng)
        wanted = self._described(drawn, self.net.normalise_input(good))
        x = self._jittered(good, rng)
        x = x.contiguous(memory_format=torch.channels_last)
        with self._precision():
            predicted = self.net.autoencoder(x, (wanted.shape[2], wanted.shape[3]))
        return F.mse_loss(predicted.float(), wanted)

    @torch.no_grad()
    def _described(self, drawn: Sequence[int], x: Tensor) -> Tensor:
        """The teacher's descriptors of good images ``x``: those at hand, unless augmented."""
        if not self.settings.augment:
            return torch.cat([self.features[i] for i in drawn])
        with self._precision():
            return self.net.teach(x).float()

    def _paper_view(self, drawn: Sequence[int], rng: np.random.Generator) -> Views:
        """Whole images; all but the augmentation's copy as they are."""
        good = self._good_images(drawn, rng)
        x, copy = self.net.normalise_input(good), self._jittered(good, rng)
        natural = self._naturals(rng)
        with torch.no_grad(), self._precision():
            copy_target = self.net.teach(copy).float()
        target = self._described(drawn, x)
        size = (target.shape[2], target.shape[3])
        with self._precision():
            predicted = self.net.autoencoder(copy, size)
        return Views(x, target, natural, copy, copy_target, predicted, self._inspected)

    @torch.no_grad()
    def _window_view(self, drawn: Sequence[int], rng: np.random.Generator) -> Views:
        """Windows of good images for both halves of the student; the autoencoder is finished."""
        geometry, side = self.settings.geometry, self.settings.window
        there = self._window(rng)
        elsewhere = Window.draw(geometry, side, rng)
        whole = self.net.normalise_input(self._good_images(drawn, rng))
        x = there.of_input(whole)
        natural = self._naturals(rng)
        with self._precision():
            if self.settings.augment:
                target = self.net.teach(x).float()
            else:
                target = torch.cat([there.of_output(self.features[i]) for i in drawn])
            predicted = self._predict(whole)
        predicted = there.of_output(predicted)
        if natural is not None:
            natural = elsewhere.of_input(natural)
        counts = self._inspected
        counts = None if counts is None else there.of_output(counts[None, None])[0, 0]
        return Views(x, target, natural, None, target, predicted, counts)

    def _window(self, rng: np.random.Generator) -> Window:
        """One in which something is inspected, if a few draws find it."""
        for _ in range(WINDOW_DRAWS):
            window = Window.draw(self.settings.geometry, self.settings.window, rng)
            counts = self._inspected
            if counts is None or window.of_output(counts[None, None]).any():
                break
        return window

    def _predict(self, x: Tensor) -> Tensor:
        """The autoencoder's output as it inspects: without dropout."""
        self.net.autoencoder.eval()
        size = self.settings.geometry.map_size
        predicted: Tensor = self.net.autoencoder(
            x.contiguous(memory_format=torch.channels_last), size
        ).float()
        self.net.autoencoder.train()
        return predicted

    @torch.no_grad()
    def _begin_student(self) -> None:
        """See ``closed_form``."""
        seed = self.settings.seed
        rng = np.random.default_rng((seed, 1 << 34))
        torch.manual_seed(int(rng.integers(1 << 62)))
        order = rng.permutation(len(self._good))[:SOLVED_IMAGES].tolist()
        some = self.net.normalise_input(self._rgb([self._good[i] for i in order[:SCALING_IMAGES]]))
        part = Window.draw(self.settings.geometry, SCALING_SIDE, rng)
        some = part.of_input(some)
        begin_student(self.net.student, self.net.teacher, some)
        positions = -(-SOLVED_POSITIONS // len(order))
        solve_student(
            self.net.student,
            self._pairs(order, rng),
            positions,
            seed,
            bfloat16=self.settings.bfloat16,
        )

    def _pairs(self, order: Sequence[int], rng: np.random.Generator) -> Iterator[Pair]:
        """Good images, with the descriptors and the prediction that the student is to give."""
        for index in order:
            x = self.net.normalise_input(self._good_images([index], rng))
            with self._precision():
                predicted = self._predict(x)
            yield Pair(x, torch.cat([self._described([index], x), predicted], 1), self._inspected)
