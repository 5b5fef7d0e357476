"""The frozen recipe: one product's model, normalisation, threshold and geometry (DESIGN 6)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.geometry import Geometry
from efficientad_stream.core.placement import Rect
from efficientad_stream.core.types import RecipeId

__all__ = [
    "Geometry",
    "Quantiles",
    "Recipe",
    "ThresholdChoice",
    "recipe_from_mapping",
    "recipe_to_mapping",
]

FORMAT = 1
"""Version of the recipe's layout on disk."""
NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"


@dataclass(frozen=True)
class Quantiles:
    """The a and b quantiles (0.9 and 0.995) of both maps over all pixels of the calibration set.

    Source: paper, section 3.4. ``st`` is the student-teacher (local) map, ``ae`` the
    autoencoder-student (global) map.
    """

    qa_st: float
    qb_st: float
    qa_ae: float
    qb_ae: float

    def __post_init__(self) -> None:
        for name in ("qa_st", "qb_st", "qa_ae", "qb_ae"):
            if not math.isfinite(getattr(self, name)):
                raise ArtifactError(f"quantiles.{name}: not a finite number; calibrate again")
        if self.qb_st <= self.qa_st or self.qb_ae <= self.qa_ae:
            raise ArtifactError(
                "quantiles: the b quantile must lie above the a quantile; calibrate again"
            )


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold and how it came about: no number without its reason.

    Attributes:
        value: a score at or above it fails.
        method: e.g. "good_tail(false_rejects=0.001)" or "manual".
        data: what it was chosen on, for people.
        good_parts: how many known-good frames that was.
    """

    value: float
    method: str
    data: str
    good_parts: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ArtifactError(f"threshold.value: {self.value} is not a finite number")


@dataclass(frozen=True)
class Recipe:
    """One product. Immutable: a new threshold is a new revision beside the old one."""

    name: str
    revision: int
    size: str
    """Network variant: "S" or "M"."""
    geometry: Geometry
    quantiles: Quantiles
    threshold: ThresholdChoice
    model_sha256: str
    training: dict[str, str | int | float] = field(default_factory=dict)
    """Steps, seconds, images, teacher hash, who and when: for people, never for the score."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ArtifactError(f"name: {self.name!r} is not {NAME_RULE}")
        if self.revision < 1:
            raise ArtifactError(f"revision: {self.revision} must be 1 or more")
        if self.size not in ("S", "M"):
            raise ArtifactError(f"size: {self.size!r} is neither S nor M")

    @property
    def id(self) -> RecipeId:
        """The identity that every inspection carries."""
        return RecipeId(self.name, self.revision, self.model_sha256)


def recipe_to_mapping(recipe: Recipe) -> dict[str, object]:
    """What ``recipe.yaml`` holds: plain dicts, strings and numbers, in the order for people."""
    return {
        "format": FORMAT,
        "name": recipe.name,
        "revision": recipe.revision,
        "size": recipe.size,
        "input": _input_to_mapping(recipe.geometry),
        "quantiles": asdict(recipe.quantiles),
        "threshold": asdict(recipe.threshold),
        "model_sha256": recipe.model_sha256,
        "training": dict(recipe.training),
    }


def recipe_from_mapping(mapping: object) -> Recipe:
    """The recipe that ``recipe_to_mapping`` wrote.

    Raises:
        ArtifactError: a key is missing, unknown, or holds what it cannot; the message names it.
    """
    top = _Section("", mapping)
    if top.integer("format") != FORMAT:
        raise ArtifactError(
            f"format: is not {FORMAT}, so another version wrote it; read it with that version"
        )
    inside = _Section("input.", top.take("input"))
    levels = _Section("quantiles.", top.take("quantiles"))
    choice = _Section("threshold.", top.take("threshold"))
    recipe = Recipe(
        name=top.text("name"),
        revision=top.integer("revision"),
        size=top.text("size"),
        geometry=_input_from(inside),
        quantiles=Quantiles(*(levels.number(k) for k in ("qa_st", "qb_st", "qa_ae", "qb_ae"))),
        threshold=ThresholdChoice(
            choice.number("value"),
            choice.text("method"),
            choice.text("data"),
            choice.integer("good_parts"),
        ),
        model_sha256=top.text("model_sha256"),
        training=_training(top.take("training")),
    )
    if not re.fullmatch("[0-9a-f]{64}", recipe.model_sha256):
        raise ArtifactError("model_sha256: not 64 hexadecimal digits")
    for section in (top, inside, levels, choice):
        section.nothing_left()
    return recipe


def _input_to_mapping(geometry: Geometry) -> dict[str, object]:
    """The section ``input``; what is not used is left out."""
    section: dict[str, object] = {
        "height": geometry.height,
        "width": geometry.width,
        "channels": geometry.channels,
        "exposure": geometry.exposure,
    }
    if geometry.fit != "stretch":
        section["fit"] = geometry.fit
    if geometry.frame is not None:
        section["frame"] = dict(zip(("height", "width"), geometry.frame, strict=True))
    if geometry.region is not None:
        section["region"] = geometry.region._asdict()
    if geometry.mask_sha256:
        section["mask_sha256"] = geometry.mask_sha256
    return section


def _input_from(section: _Section) -> Geometry:
    """What the section ``input`` says; the first recipes knew nothing but the size."""
    frame = section.integers("frame", ("height", "width"))
    region = section.integers("region", Rect._fields)
    return Geometry(
        section.integer("height"),
        section.integer("width"),
        section.integer("channels"),
        section.text("exposure", "as_is"),
        section.text("fit", "stretch"),
        None if region is None else Rect(*region),
        None if frame is None else (frame[0], frame[1]),
        section.text("mask_sha256", ""),
    )


def _training(value: object) -> dict[str, str | int | float]:
    """The notes on training: a mapping of plain values."""
    notes: dict[str, str | int | float] = {}
    for key, note in _Section("training.", value).left.items():
        if not isinstance(note, (str, int, float)):
            raise ArtifactError(f"training.{key}: neither text nor a number")
        notes[str(key)] = note
    return notes


class _Section:
    """One mapping of a file, read key by key; what is left over is unknown."""

    def __init__(self, prefix: str, value: object) -> None:
        if not isinstance(value, Mapping):
            where = prefix.rstrip(".") or "the file"
            raise ArtifactError(f"{where}: not a mapping of keys to values")
        self.prefix = prefix
        self.left = dict(value)

    def take(self, key: str) -> object:
        """The value of ``key``, whatever it is."""
        if key not in self.left:
            raise ArtifactError(f"{self.prefix}{key}: missing")
        return self.left.pop(key)

    def text(self, key: str, default: str | None = None) -> str:
        """The value of ``key``, a string; ``default`` if there is one and the key is missing."""
        if default is not None and key not in self.left:
            return default
        value = self.take(key)
        if not isinstance(value, str):
            raise ArtifactError(f"{self.prefix}{key}: {value!r} is not text")
        return value

    def integer(self, key: str) -> int:
        """The value of ``key``, a whole number."""
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ArtifactError(f"{self.prefix}{key}: {value!r} is not a whole number")
        return value

    def integers(self, key: str, names: Sequence[str]) -> list[int] | None:
        """The whole numbers of a mapping below ``key``; None if the key is missing."""
        if key not in self.left:
            return None
        inner = _Section(f"{self.prefix}{key}.", self.take(key))
        found = [inner.integer(name) for name in names]
        inner.nothing_left()
        return found

    def number(self, key: str) -> float:
        """The value of ``key``, a number; also "1e-5", which YAML 1.1 takes for text."""
        value = self.take(key)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except (ValueError, OverflowError) as error:
                raise ArtifactError(f"{self.prefix}{key}: {value!r} is not a number") from error
        raise ArtifactError(f"{self.prefix}{key}: {value!r} is not a number")

    def nothing_left(self) -> None:
        """Unknown keys fail: a misspelt one must not be ignored."""
        if self.left:
            known = next(iter(self.left))
            raise ArtifactError(f"{self.prefix}{known}: unknown key")
