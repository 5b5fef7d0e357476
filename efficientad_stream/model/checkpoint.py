"""Checkpoints of an unfinished training: safetensors, like everything else; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.model.artifact import read_tensors
from efficientad_stream.model.files import write_atomically
from efficientad_stream.model.plateau import Plateau
from efficientad_stream.model.settings import Done, Plan

KIND = "training checkpoint"
OPTIONS = {
    "bfloat16": "precision",
    "seconds": "time-budget",
    "height": "input",
    "width": "input",
    "channels": "grey",
    "frame": "region, --mask or --fit",
    "mask_sha256": "mask",
    "good images": "images",
    "photographs": "natural",
}
"""What a user says it with, where that is called otherwise."""
TELLING = frozenset({"size", "steps", "batch", "seed", "device", "method", "autoencoder_steps"})
"""What can be shown as it was said."""
DAMAGED = "is damaged or of another version; delete it to begin anew"


def save_checkpoint(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, str],
    done: Done,
) -> None:
    """Write everything that the next step depends on.

    Randomness is not among it: step k draws from a generator seeded by the run's seed and k.

    Args:
        path: overwritten atomically.
        net: parameters and buffers.
        optimizer: its moments.
        identity: what makes this run this run; a resumed one must agree.
        done: how far it has come.

    Raises:
        ArtifactError: it cannot be written.
    """
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    notes = {
        "kind": KIND,
        "steps": str(done.steps),
        "seconds": str(done.seconds),
        "plan": json.dumps(done.plan),
        "plateau": json.dumps(done.plateau),
        "identity": json.dumps(dict(identity)),
    }
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, tensors_to_bytes(plain, notes))


def load_checkpoint(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, str],
) -> Done:
    """Put ``net`` and ``optimizer`` into the state of the checkpoint; returns how far it had come.

    Raises:
        ArtifactError: damaged, no checkpoint, or of another run; says what differs.
    """
    try:
        tensors, notes = read_tensors(path)
    except ArtifactError as error:  # its advice is for what was copied here; this was made here
        raise ArtifactError(f"{path}: {DAMAGED}") from error
    if notes.get("kind") != KIND:
        raise ArtifactError(f"{path}: is not a checkpoint of a training; delete it to begin anew")
    try:
        before: dict[str, str] = json.loads(notes["identity"])
        _same(path, before, identity)
        own = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
        net.load_state_dict(own)
        _load_moments(optimizer, tensors)
        plan = Plan(*json.loads(notes["plan"]))
        plateau = Plateau(*json.loads(notes["plateau"]))
        return Done(int(notes["steps"]), float(notes["seconds"]), plan, plateau)
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        raise ArtifactError(f"{path}: {DAMAGED}") from error


def _same(path: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise ArtifactError unless both runs are the same."""
    for key, value in now.items():
        if before.get(key) != value:
            option = OPTIONS.get(key, key.replace("_", "-"))
            values = f" ({before.get(key)}, not {value})" if key in TELLING else ""
            raise ArtifactError(
                f"{path}: belongs to a training with another --{option}{values}; resume with the "
                "same arguments, or begin anew in another folder"
            )


def _load_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Moments in the memory layout of their parameters, which fused optimisers rely on."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        if not name.startswith("optimizer."):
            continue
        _, index, moment = name.split(".")
        parameter = parameters[int(index)]
        state = optimizer.state[parameter]
        if value.shape == parameter.shape:
            state[moment] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        else:
            state[moment] = value.to(parameter.device, copy=True)
