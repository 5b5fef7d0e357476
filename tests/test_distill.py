"""Distillation: folding is exact, targets line up with the PDN, runs stop and go on."""

from __future__ import annotations

import argparse
import os
import random
import signal
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from efficientad_stream.commands import distill as command
from efficientad_stream.core.errors import ArtifactError, ConfigError
from efficientad_stream.core.types import MAP_BORDER
from efficientad_stream.longwork import INTERRUPTED
from efficientad_stream.model.artifact import load_teacher
from efficientad_stream.model.backbone import load_backbone
from efficientad_stream.model.distill import Distillation, DistillSettings, NormalisedPDN
from efficientad_stream.model.networks import IMAGENET_MEAN, IMAGENET_STD, PDN
from efficientad_stream.model.targets import CELL, VIEW, Kind, Target, ViewPool, random_view

SMALL = DistillSettings(steps=4, batch=2, crop=64, views=3, batch_norm=True, padding=False)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three small colour pictures."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        noise = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), cv2.resize(noise, (160, 128)))
    return folder


def paths(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("size", ["S", "M"])
def test_batch_normalisation_folds_away_exactly(size: str) -> None:
    torch.manual_seed(0)
    net = NormalisedPDN(PDN(size), batch_norm=True)  # type: ignore[arg-type]
    for norm in net.norms.values():
        assert isinstance(norm, torch.nn.BatchNorm2d)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = net.eval()(x, False)
        found = net.folded()(x, padding=False)
    assert (expected - found).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("padding", [True, False])
def test_without_batch_normalisation_it_is_the_plain_network(padding: bool) -> None:
    pdn = PDN("S")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(NormalisedPDN(pdn, False)(x, padding), pdn(x, padding=padding))


def test_the_backbone_recognises_structure_and_is_frozen() -> None:
    net = load_backbone()
    features = net(torch.zeros(1, 3, 96, 128))
    assert [tuple(f.shape[1:]) for f in features] == [
        (48, 12, 16),
        (288, 12, 16),
        (88, 6, 8),
        (120, 6, 8),
        (720, 6, 8),
    ]
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(("kind", "scale"), [("mixed", 2), ("deep", 1)])
def test_targets_are_normalised_over_the_views_they_were_fitted_on(
    kind: Kind, scale: int, photographs: Path
) -> None:
    target = Target(load_backbone(), kind, scale)
    views = ViewPool(paths(photographs), target, 1, bfloat16=False, grey_probability=0.1, seed=3)
    seen = [next(views.views()) for _ in range(3)]
    target.fit(iter(seen), 3, bfloat16=False)
    outputs = torch.cat([target(view, bfloat16=False) for view in seen]).transpose(0, 1).flatten(1)
    assert outputs.shape == (384, 3 * (VIEW // CELL) ** 2)
    assert outputs.mean(1).abs().max() < 1e-3
    varied = outputs.std(1) > 0.01  # a channel may be silent on three pictures
    assert (outputs.std(1)[varied] - 1).abs().max() < 1e-2


def test_crops_and_their_targets_are_of_the_same_place(photographs: Path) -> None:
    """Only a crop cut where its target was cut is found again in its view at that place."""
    pool = ViewPool(
        paths(photographs), Target(load_backbone()), 1, bfloat16=False, grey_probability=0.0, seed=1
    )
    pool.renew(pool.views(), 1)
    grid = VIEW // CELL
    ramp = torch.arange(grid * grid, dtype=torch.float32).view(grid, grid)
    pool._targets[:] = 0
    pool._targets[0, 0] = ramp // grid  # row of the cell; exact in bfloat16 below 256
    pool._targets[0, 1] = ramp % grid
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    view = pool._views[0].float() / 255
    for padding in (True, False):
        border = 0 if padding else MAP_BORDER
        crops, targets = pool.draw(4, 64, padding=padding)
        for crop, target in zip(crops, targets, strict=True):
            y = CELL * (int(target[0, 0, 0]) - border)
            x = CELL * (int(target[1, 0, 0]) - border)
            assert target.shape[1:] == (16 - 2 * border, 16 - 2 * border)
            torch.testing.assert_close(crop * std + mean, view[:, y : y + 64, x : x + 64])


def test_grey_views_are_grey() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    view = random_view(image, random.Random(0), grey_probability=1.0)
    assert view.shape == (VIEW, VIEW, 3)
    assert (view[..., 0] == view[..., 1]).all()


def test_a_run_is_interrupted_and_goes_on(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "teacher.safetensors"
    first = Distillation(paths(photographs), SMALL, out, torch.device("cpu"))
    first.prepare(lambda _: None)
    first.step()
    first.step()
    first.save()
    second = Distillation(paths(photographs), SMALL, out, torch.device("cpu"))
    said: list[str] = []
    second.prepare(said.append)
    assert "resumed at step 2" in said[0]
    for name, value in first.net.state_dict().items():
        assert torch.equal(second.net.state_dict()[name], value), name
    assert torch.equal(first.target.std, second.target.std)
    assert second.fraction() == 0.5
    other = Distillation(
        paths(photographs), DistillSettings(steps=4, views=3), out, torch.device("cpu")
    )
    with pytest.raises(ArtifactError, match="resume with the same arguments"):
        other.prepare(lambda _: None)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_writes_a_teacher_that_can_be_loaded(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "teacher.safetensors"
    words = f"--images {photographs} --out {out} --steps 2 --batch 2 --crop 64 --views 2"
    assert command.run(arguments(*words.split(), "--batch-norm", "--no-padding")) == 0
    teacher = load_teacher(out)
    assert teacher.size == "S"
    assert teacher.info["steps"] == "2"
    assert not out.with_suffix(".checkpoint.safetensors").exists()
    with pytest.raises(ArtifactError, match="exists already"):
        command.run(arguments(*words.split()))


def test_a_signal_stops_it_in_order_and_the_same_command_goes_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "teacher.safetensors"
    words = f"--images {photographs} --out {out} --time-budget 1h --batch 1 --crop 64 --views 1"
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    assert command.run(arguments(*words.split())) == INTERRUPTED
    said = capsys.readouterr().err
    assert "the same command goes on from there" in said
    assert out.with_suffix(".checkpoint.safetensors").exists()
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--crop", "66"], "--crop 66: must be a multiple of 4"),
        (["--time-budget", "soon"], "--time-budget soon: not a duration"),
        (["--time-budget", "infm"], "not a duration"),
        (["--batch", "0"], "--batch: must be at least 1"),
        (["--lr", "nan"], "--lr nan: must lie between 0 and 1"),
        (["--out", "/dev/null/teacher.safetensors"], "--out /dev/null/.*: cannot be made"),
    ],
)
def test_wrong_arguments_are_named(photographs: Path, words: list[str], message: str) -> None:
    args = arguments("--images", str(photographs), "--out", "unused.safetensors", *words)
    with pytest.raises(ConfigError, match=message):
        command.run(args)
