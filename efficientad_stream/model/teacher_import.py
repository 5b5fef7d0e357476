"""Published teacher files, read without trusting them.

Two public re-implementations of the paper publish their distilled teachers as PyTorch state dicts:
one of a plain ``nn.Sequential`` (``0.weight``, ``3.weight``, ...), one of named layers
(``conv1.weight``, ...). Both take RGB normalised as for ImageNet, as this package does.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.model.networks import PDN, Size

SEQUENTIAL: Mapping[Size, tuple[str, ...]] = {
    "S": ("0", "3", "6", "8"),
    "M": ("0", "3", "6", "8", "10", "12"),
}
"""Positions of the convolutions among ReLU and pooling layers."""
LARGEST = 1 << 28
"""Bytes; a teacher of size M in single precision has 43 million."""


def read_published(path: Path, size: Size | None = None) -> tuple[PDN, dict[str, str]]:
    """A published teacher as a PDN, and notes on where it is from.

    Args:
        path: a file made by ``torch.save``; loaded with ``weights_only=True``.
        size: what it must be; None: what its keys say.

    Raises:
        ArtifactError: it cannot be read, is not one of the known layouts, or of another size.
    """
    state = _read(path)
    found, layout = _recognise(path, state)
    if size is not None and size != found:
        raise ArtifactError(f"{path}: is a teacher of size {found}, not {size}")
    pdn = PDN(found)
    wanted = pdn.state_dict()
    names = [name.rpartition(".")[0] for name in wanted if name.endswith(".weight")]
    source = dict(zip(names, SEQUENTIAL[found], strict=True)) if layout == "sequential" else {}
    tensors = {}
    for name, value in wanted.items():
        layer, _, kind = name.rpartition(".")
        own = f"{source.get(layer, layer)}.{kind}"
        tensors[name] = _checked(path, own, state[own], value)
    pdn.load_state_dict(tensors)
    notes = {
        "layout": layout,
        "imported_from": path.name,
        "imported_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return pdn.eval().requires_grad_(False), notes


def _read(path: Path) -> dict[str, object]:
    """The state dict in ``path``."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error
    if size > LARGEST:
        raise ArtifactError(f"{path}: {size >> 20} MiB is too large for a teacher")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or foreign file can raise anything in here
        raise ArtifactError(
            f"{path}: is not a PyTorch state dict that can be loaded safely; give the published "
            "teacher file (a .safetensors teacher needs no import)"
        ) from error
    if not isinstance(state, dict):
        raise ArtifactError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return {str(key): value for key, value in state.items()}


def _recognise(path: Path, state: Mapping[str, object]) -> tuple[Size, str]:
    """Size and layout by the keys: exactly those of a known layout, nothing more."""
    sizes: tuple[Size, ...] = ("S", "M")
    for size in sizes:
        named = [f"conv{index + 1}" for index in range(len(SEQUENTIAL[size]))]
        for layout, layers in (("sequential", SEQUENTIAL[size]), ("named", named)):
            if state.keys() == {
                f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")
            }:
                return size, layout
    few = ", ".join(list(state)[:3]) or "nothing"
    raise ArtifactError(
        f"{path}: its keys ({few}, ...) are of no published teacher; known are 0.weight, 3.weight, "
        "... and conv1.weight, conv2.weight, ..."
    )


def _checked(path: Path, name: str, value: object, wanted: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.shape != wanted.shape:
        came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ArtifactError(f"{path}: {name} is {came}, not {tuple(wanted.shape)}")
    if not value.is_floating_point() or not torch.isfinite(value).all():
        raise ArtifactError(f"{path}: {name} holds values that are not finite")
    return value.float()
