"""Recipes and teachers on disk (DESIGN 6): safetensors and YAML, never pickle.

A recipe is a folder with ``recipe.yaml``, ``model.safetensors`` and, if it has one, ``mask.png``.
The YAML carries the SHA-256 of the others and is written last, so a folder without it is no recipe,
however far a save came. Convolutions are stored in half precision. They are rounded *before*
calibration (``round_to_half``) and computed in single precision, so what was calibrated is what
runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from efficientad_stream import strict_yaml
from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.recipe import Recipe, recipe_from_mapping, recipe_to_mapping
from efficientad_stream.model.files import AGAIN, read_file, read_vouched, write_atomically
from efficientad_stream.model.mask import known_mask, mask_bytes, with_mask
from efficientad_stream.model.networks import PDN, EfficientAD, Size

RECIPE_FILE = "recipe.yaml"
MODEL_FILE = "model.safetensors"
MASK_FILE = "mask.png"
FULL_PRECISION = ("mean", "std")
"""Kept in single precision: two vectors, and a small deviation may lie below half precision."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe whose files were found whole, and its networks in single precision, on the CPU."""

    recipe: Recipe
    net: EfficientAD


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher whose file was found whole: single precision, CPU, frozen."""

    pdn: PDN
    size: Size
    sha256: str
    info: dict[str, str] = field(default_factory=dict)
    """The file's own notes: how it came about."""


@torch.no_grad()
def round_to_half(net: EfficientAD) -> None:
    """Round all convolutions of ``net``, in place, to values that half precision can hold.

    Raises:
        ArtifactError: a weight is not finite, or too large for half precision.
    """
    for name, value in net.state_dict().items():
        if name not in FULL_PRECISION:
            value.copy_(value.half())
        if not torch.isfinite(value).all():
            raise ArtifactError(f"{name}: holds values that are not finite; train again")


def save_recipe(folder: Path, recipe: Recipe, net: EfficientAD) -> Recipe:
    """Write ``recipe`` and ``net`` into ``folder``; returns the recipe with its hashes filled in.

    The hashes in ``recipe`` are ignored. The weights must have gone through ``round_to_half``.

    Raises:
        ArtifactError: the folder holds a recipe already, or cannot be written.
        ValueError: the weights are not those that half precision holds.
    """
    refuse_overwrite(folder)
    tensors = {}
    for name, value in net.state_dict().items():
        stored = value if name in FULL_PRECISION else value.half()
        if not torch.equal(stored.float(), value):
            raise ValueError(f"{name}: not rounded to half precision before it was calibrated")
        tensors[name] = stored.contiguous().cpu()
    data = file_bytes(tensors, {"kind": "recipe", "size": recipe.size})
    final = replace(recipe, model_sha256=hashlib.sha256(data).hexdigest())
    mask = recipe.geometry.mask
    if mask is not None:
        final = replace(final, geometry=with_mask(recipe.geometry, mask))
        write_atomically(folder / MASK_FILE, mask_bytes(mask))
    text = strict_yaml.dump(recipe_to_mapping(final))
    recipe_from_mapping(strict_yaml.parse(text.encode()).value)  # or it is not written
    write_atomically(folder / MODEL_FILE, data)
    write_atomically(folder / RECIPE_FILE, text.encode())
    return final


def refuse_overwrite(folder: Path) -> None:
    """Recipes are immutable.

    Raises:
        ArtifactError: ``folder`` holds a recipe, or is not a folder.
    """
    if (folder / RECIPE_FILE).exists():
        raise ArtifactError(
            f"{folder}: holds a recipe already, and recipes are never changed; write the next "
            "revision into a folder beside it"
        )
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is not a folder; give the recipe a folder of its own")


def load_recipe(folder: Path) -> LoadedRecipe:
    """Read and check a recipe: YAML, hashes, mask, names, shapes and values of all weights.

    Raises:
        ArtifactError: anything is missing, damaged, changed or not of this format; one line with
            the file and what to do.
    """
    recipe = read_recipe_file(folder)
    if (folder / MASK_FILE).exists() and not recipe.geometry.mask_sha256:
        raise ArtifactError(
            f"{folder}: holds {MASK_FILE}, but {RECIPE_FILE} has no input.mask_sha256; {AGAIN}"
        )
    if recipe.geometry.mask_sha256:
        data = read_vouched(folder / MASK_FILE, recipe.geometry.mask_sha256, RECIPE_FILE)
        recipe = replace(recipe, geometry=known_mask(recipe.geometry, data, folder / MASK_FILE))
    path = folder / MODEL_FILE
    data = read_vouched(path, recipe.model_sha256, RECIPE_FILE)
    tensors, _ = _parse_tensors(path, data)
    net = EfficientAD(_size(recipe.size))
    _fill(net, tensors, path)
    if not (net.std > 0).all():
        raise ArtifactError(f"{path}: std holds values that are not positive; {AGAIN}")
    return LoadedRecipe(recipe, net.eval().requires_grad_(False))


def read_recipe_file(folder: Path) -> Recipe:
    """``recipe.yaml`` alone, checked; the model file is not looked at.

    Raises:
        ArtifactError: missing or not a recipe.
    """
    path = folder / RECIPE_FILE
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: is not a recipe ({RECIPE_FILE} is missing); give the folder that "
            "'efficientad-stream train' wrote"
        )
    try:
        document = strict_yaml.parse(read_file(path, strict_yaml.MAX_BYTES))
    except strict_yaml.YamlError as error:
        raise ArtifactError(f"{path}, line {error.line}: {error}; {AGAIN}") from error
    try:
        return recipe_from_mapping(document.value)
    except ArtifactError as error:
        key = str(error).partition(":")[0]
        line = document.line(tuple(key.split(".")))
        raise ArtifactError(f"{path}, line {line}: {error}; {AGAIN}") from error


def save_teacher(path: Path, pdn: PDN, info: Mapping[str, str]) -> None:
    """Write a teacher in half precision, with ``info`` (how it came about) in the file's header.

    Raises:
        ArtifactError: a weight is not finite in half precision, or the file cannot be written.
    """
    tensors = {name: value.half().contiguous().cpu() for name, value in pdn.state_dict().items()}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ArtifactError(f"{name}: holds values that half precision cannot; not written")
    notes = {**info, "kind": "teacher", "size": pdn.size}
    write_atomically(path, file_bytes(tensors, notes))


def file_bytes(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> bytes:
    """A safetensors file; the same content is the same bytes, and so the same hash.

    The library writes ``notes`` in an order that changes from run to run; here they are sorted.
    """
    data = tensors_to_bytes(dict(tensors), dict(notes))
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the tensors behind it stay aligned
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_teacher(path: Path) -> LoadedTeacher:
    """Read and check a teacher.

    Raises:
        ArtifactError: missing, damaged, or not a teacher; one line with the file and what to do.
    """
    return _teacher(path, read_file(path))


def default_teacher(size: Size) -> LoadedTeacher:
    """The teacher that comes with this package.

    Raises:
        ArtifactError: none comes for this size.
    """
    name = f"teacher_{size.lower()}.safetensors"
    asset = resources.files("efficientad_stream") / "assets" / name
    if not asset.is_file():
        raise ArtifactError(
            f"no teacher of size {size} comes with this version; give one with --teacher "
            "(made by 'efficientad-stream distill' or 'efficientad-stream teacher import')"
        )
    return _teacher(Path(str(asset)), asset.read_bytes())


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of any safetensors file, and the notes in its header.

    Raises:
        ArtifactError: missing, damaged, or no safetensors file.
    """
    return _parse_tensors(path, read_file(path))


def _teacher(path: Path, data: bytes) -> LoadedTeacher:
    tensors, info = _parse_tensors(path, data)
    if info.get("kind") != "teacher":
        raise ArtifactError(
            f"{path}: is not a teacher of this package (kind {info.get('kind', 'unknown')!r}); "
            "convert a published one with 'efficientad-stream teacher import'"
        )
    size = _size(info.get("size", ""), path)
    pdn = PDN(size)
    _fill(pdn, tensors, path)
    sha256 = hashlib.sha256(data).hexdigest()
    return LoadedTeacher(pdn.eval().requires_grad_(False), size, sha256, info)


def _size(text: str, path: Path | None = None) -> Size:
    if text == "S":
        return "S"
    if text == "M":
        return "M"
    raise ArtifactError(f"{path}: size {text!r} is neither S nor M; {AGAIN}")


def _parse_tensors(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the notes of a safetensors file; its header is a length and JSON."""
    try:
        tensors = tensors_from_bytes(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        notes = header.get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ArtifactError(f"{path}: not a safetensors file, or truncated; {AGAIN}") from error
    return tensors, {str(k): str(v) for k, v in notes.items()}


def _fill(net: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load ``tensors`` into ``net`` in single precision: every name, every shape, all finite."""
    wanted = net.state_dict()
    wrong = sorted(wanted.keys() ^ tensors.keys())
    if wrong:
        what = "is missing" if wrong[0] in wanted else "does not belong here"
        raise ArtifactError(f"{path}: {wrong[0]} {what}; {AGAIN}")
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[name].shape)}"
            raise ArtifactError(f"{path}: {name} has the shape {shapes}; {AGAIN}")
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise ArtifactError(f"{path}: {name} holds values that are not finite; {AGAIN}")
    net.load_state_dict({name: value.float() for name, value in tensors.items()})
