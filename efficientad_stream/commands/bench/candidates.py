"""What is measured: our backends, and the plain network as published code runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch

from efficientad_stream.backends.choose import make_backend
from efficientad_stream.backends.processor import thread_count
from efficientad_stream.config import BackendKind
from efficientad_stream.core.recipe import Quantiles, Recipe, ThresholdChoice
from efficientad_stream.core.types import PixelArray, Scores
from efficientad_stream.longwork import parse_input
from efficientad_stream.model.artifact import LoadedRecipe
from efficientad_stream.model.frames import prepare
from efficientad_stream.model.networks import MAP_GAIN, EfficientAD, Size

PLAIN = "eager"
GAIN = 2.0
"""On default weights, so that the maps of random networks are not all but flat."""


class Candidate(Protocol):
    """One way to score frames, warm."""

    @property
    def name(self) -> str:
        """As in the table."""

    def score(self, frames: Sequence[PixelArray]) -> list[Scores]:
        """Host to host: frames as they come from the camera, scores and maps back."""

    def close(self) -> None:
        """Let go of everything."""


class OurBackend:
    """A backend of ours, through the interface that the daemon uses."""

    def __init__(self, name: BackendKind, loaded: LoadedRecipe, threads: int, batch: int) -> None:
        self._backend = make_backend(loaded, name, threads, batch, maps=True)
        self.name: str = name

    def score(self, frames: Sequence[PixelArray]) -> list[Scores]:
        """As the daemon does."""
        return self._backend.collect(self._backend.submit(frames))

    def close(self) -> None:
        """Let go of everything."""
        self._backend.close()


class PlainNetwork:
    """The networks as they are written down, eager, single precision, channels first.

    So the public re-implementations run them; they differ in how they load an image, and here all
    candidates share that.
    """

    name = PLAIN

    def __init__(self, loaded: LoadedRecipe, threads: int) -> None:
        self._threads = thread_count(threads)
        self._net, self._recipe = loaded.net.eval(), loaded.recipe

    @torch.no_grad()
    def score(self, frames: Sequence[PixelArray]) -> list[Scores]:
        """Scores and maps."""
        torch.set_num_threads(self._threads)
        pixels = np.stack([prepare(frame, self._recipe.geometry) for frame in frames])
        rgb = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous()
        combined, maps = self._net(rgb, self._recipe.quantiles)
        peaks = torch.stack([one.amax((1, 2)) for one in (combined, *maps)], 1).tolist()
        return [
            Scores(score, local, globl, one)
            for (score, local, globl), one in zip(peaks, combined.numpy(), strict=True)
        ]

    def close(self) -> None:
        """Nothing to do."""


def random_recipe(size: Size, text: str) -> LoadedRecipe:
    """Networks with random weights: as fast as trained ones.

    Raises:
        ConfigError: no input size.
    """
    geometry = parse_input(text, 3)
    torch.manual_seed(0)
    net = EfficientAD(size).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.mul_(GAIN)
    quantiles = Quantiles(0.0, MAP_GAIN, 0.0, MAP_GAIN)
    threshold = ThresholdChoice(1.0, "manual", "noise", 1)
    recipe = Recipe("random", 1, size, geometry, quantiles, threshold, "0" * 64)
    return LoadedRecipe(recipe, net)


def make_candidates(
    names: Iterable[BackendKind], loaded: LoadedRecipe, threads: int, batch: int, compare: bool
) -> list[Candidate]:
    """All of them, warm; the plain network last if it is to be compared with.

    Raises:
        ConfigError: ``cpu`` is among them and was not built.
    """
    made: list[Candidate] = [OurBackend(name, loaded, threads, batch) for name in names]
    return [*made, PlainNetwork(loaded, threads)] if compare else made
