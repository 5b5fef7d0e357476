"""``train`` and ``evaluate`` as a user meets them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from efficientad_stream.cli import main
from efficientad_stream.commands.evaluate.scoring import score_all
from efficientad_stream.core.errors import ConfigError
from efficientad_stream.core.evaluation import auroc
from efficientad_stream.core.recipe import Geometry
from efficientad_stream.core.types import Policy, Reason
from efficientad_stream.longwork import parse_input
from efficientad_stream.model.artifact import load_recipe, save_teacher
from efficientad_stream.model.dataset import find_datasets
from efficientad_stream.model.files import exclusive
from efficientad_stream.model.networks import PDN

SMALL = ["--input", "128", "--precision", "fp32"]


def ramp(seed: int, blot: bool = False) -> np.ndarray:
    image = np.linspace(40, 200, 150)[None, :, None] * np.ones((140, 1, 3))
    noisy = image + np.random.default_rng(seed).normal(0, 6, image.shape)
    if blot:
        noisy[50:90, 60:100] = 255
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ramps, some with a blot, in the layout of MVTec AD; photographs and a teacher beside them."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("data")
    for name, count in (("train/good", 12), ("test/good", 4), ("natural", 3)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(root / name / f"{index}.png"), ramp(index + 100 * len(name)))
    (root / "test" / "blot").mkdir()
    (root / "ground_truth" / "blot").mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(root / f"test/blot/{index}.png"), ramp(index, blot=True))
        mask = np.zeros((140, 150), np.uint8)
        mask[50:90, 60:100] = 255
        if index < 2:
            cv2.imwrite(str(root / f"ground_truth/blot/{index}_mask.png"), mask)
    save_teacher(root / "teacher.safetensors", PDN("S"), {})
    return root


def train_arguments(dataset: Path, out: Path, *more: str) -> list[str]:
    return [
        "train",
        *("--images", str(dataset / "train" / "good")),
        *("--natural", str(dataset / "natural")),
        *("--teacher", str(dataset / "teacher.safetensors")),
        *("--out", str(out)),
        *SMALL,
        *more,
    ]


@pytest.fixture(scope="module")
def recipe(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recipes") / "ramps"
    assert main(train_arguments(dataset, out, "--steps", "3")) == 0
    return out


def test_train_writes_a_recipe(recipe: Path) -> None:
    loaded = load_recipe(recipe).recipe
    assert loaded.name == "ramps"
    assert loaded.geometry == Geometry(128, 128, 3, "level")
    assert loaded.training["steps"] == 3
    assert loaded.training["penalty"] == "natural images"
    assert sorted(path.name for path in recipe.iterdir()) == [
        "loss.csv",
        "model.safetensors",
        "recipe.yaml",
    ]


def test_drawn_images_do_instead_of_photographs(
    dataset: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(train_arguments(dataset, tmp_path / "r", "--natural", "builtin", "--steps", "3")) == 0
    )
    assert "400 images for the penalty" in capsys.readouterr().err
    drawn, photographed = load_recipe(tmp_path / "r"), load_recipe(recipe)
    assert drawn.recipe.training["penalty"] == "procedural images"
    weights = [loaded.net.student.state_dict() for loaded in (drawn, photographed)]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_folder_may_be_called_builtin(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "builtin").symlink_to(dataset / "natural")
    monkeypatch.chdir(tmp_path)
    assert main(train_arguments(dataset, Path("r"), "--natural", "./builtin", "--steps", "3")) == 0
    assert load_recipe(Path("r")).recipe.training["penalty"] == "natural images"


def test_evaluate_prints_and_writes_the_same(
    dataset: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    arguments = ["evaluate", "--dataset", str(dataset), "--recipe", str(recipe)]
    assert main([*arguments, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    report = json.loads(out.read_text())
    images = report["images"]
    assert [one["path"] for one in images[:3]] == ["blot/0.png", "blot/1.png", "blot/2.png"]
    assert (report["defective"], report["good"], report["invalid"]) == (3, 4, 0)
    scores = [one["score"] for one in images]
    assert report["image_auroc"] == auroc(scores, [one["truth"] != "good" for one in images])
    assert report["per_defect"]["blot"]["image_auroc"] == report["image_auroc"]
    assert report["defects_marked"] == 2
    assert 0 <= report["au_pro"] <= 1
    assert report["threshold"] == load_recipe(recipe).recipe.threshold.value
    for one in images:
        assert one["verdict"] == ("FAIL" if one["score"] >= report["threshold"] else "PASS")
    assert f"{100 * report['image_auroc']:.1f} %" in shown
    assert f"AU-PRO (to 0.3) {100 * report['au_pro']:.1f} %" in shown
    lowest = str(min(scores))
    assert main([*arguments, "--threshold", lowest, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert (report["escapes"], report["false_rejects"]) == (0, 4)


def test_evaluate_with_a_limit(
    dataset: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--dataset", str(dataset), "--recipe", str(recipe)]
    assert main([*arguments, "--limit", "2"]) == 0
    assert "2 images" in capsys.readouterr().out
    assert main([*arguments, "--limit", "1"]) == 0
    assert re.search(r"all defects +1 +- ", capsys.readouterr().out), "no area of one kind alone"


def test_evaluate_says_why_an_image_has_no_score(
    dataset: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_recipe(recipe)
    next(loaded.net.student.parameters()).fill_(math.nan)
    items = find_datasets(dataset)[0].items[:1]
    (scored,) = score_all(loaded, items, Policy(1.0), 1).clean
    assert scored.inspection.reason is Reason.NON_FINITE
    assert capsys.readouterr().err == "blot/0.png: its score is not a number\n"


def test_a_folder_is_for_one_training_and_leftovers_are_cleared(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    out.mkdir()
    left = out / ".checkpoint.safetensors.abcd1234"
    left.write_bytes(b"half")
    with exclusive(out):
        assert main(train_arguments(dataset, out, "--steps", "1")) == 2
    assert "another training is writing here" in capsys.readouterr().err
    assert left.exists()
    assert main(train_arguments(dataset, out, "--steps", "1", "--limit", "9")) == 3
    assert not left.exists()
    assert not out.exists()


def test_a_folder_whose_name_is_no_text(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"by\xffte\x1b")
    shutil.copytree(dataset / "train" / "good", folder)
    out = tmp_path / "r"
    more = ("--images", str(folder), "--steps", "1", "--autoencoder-steps", "1")
    assert main(train_arguments(dataset, out, *more)) == 0
    assert load_recipe(out).recipe.training["images"] == "by\\xffte\\x1b"


def test_reports_need_files_of_their_own(
    dataset: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--json", str(tmp_path / "r"), "--html", str(tmp_path / "r")]
    assert main(["evaluate", "--dataset", str(dataset), "--recipe", str(recipe), *both]) == 2
    assert "give each a file of its own" in capsys.readouterr().err


def test_an_interrupted_training_goes_on_with_the_same_command(
    dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    more = ("--steps", "4000", "--limit", "10")
    command = [sys.executable, "-m", "efficientad_stream", *train_arguments(dataset, out, *more)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "describing" in line:
                break
        while not (out / "loss.csv").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 128 + signal.SIGINT
    assert "the same command goes on from there" in rest
    assert (out / "checkpoint.safetensors").exists()
    assert not (out / "recipe.yaml").exists()
    steps = len((out / "loss.csv").read_text().splitlines()) - 1
    assert f"stopped after step {steps};" in rest
    assert main(train_arguments(dataset, out, "--steps", "5", "--limit", "10")) == 3


@pytest.mark.parametrize(
    "case",
    [
        (("--steps", "0"), 2, "--steps 0: must be 1 to 100000000"),
        (("--limit", "-1"), 2, "--limit -1: must not be negative"),
        (("--patience", "-1"), 2, "--patience -1: must not be negative"),
        (("--p-hard", "1"), 2, "--p-hard 1.0: must lie between 0 and 1"),
        (("--p-hard", "nan"), 2, "--p-hard nan: must lie between 0 and 1"),
        (("--steps", "9", "--time-budget", "1m"), 2, "give --steps or --time-budget, not both"),
        (
            ("--autoencoder-steps", "9"),
            2,
            "--autoencoder-steps goes with --steps and --method fast",
        ),
        (("--time-budget", "1d"), 2, "--time-budget 1d: not a duration; say 90s, 30m or 2h"),
        (("--augment", "gian"), 2, "--augment 'gian': unknown; give all, none, or some of"),
        (("--false-rejects", "nan"), 2, "--false-rejects nan: must lie between 0 and 1"),
        (("--input", "100"), 2, "--input 100: input.height: 100 is not a multiple of 32"),
        (("--input", "big"), 2, "--input big: give 256, or HEIGHTxWIDTH"),
        (("--name", "a b"), 2, "--name 'a b': is not 1 to 64 letters"),
        (("--frames", "0:9"), 2, "--frames is for videos"),
        (("--frames", "x"), 2, "--frames x: give START:STOP"),
        (("--no-penalty",), 2, "give either --natural DIR"),
        (("--limit", "9"), 3, "9 good images are too few"),
        (("--size", "M"), 2, "the teacher is of size S, not M"),
        (("--images", "/nowhere"), 3, "/nowhere: is not a folder"),
        (("--natural", "/nowhere"), 3, "/nowhere: is not a folder"),
        (("--teacher", "/nowhere"), 3, "/nowhere: cannot be read"),
        (("--out", "/proc/no/recipe"), 2, "--out /proc/no/recipe: cannot be made"),
        (("--out", "{recipe}"), 3, "holds a recipe already"),
        (("--images", ""), 2, "argument --images: is empty; give a path"),
        (("--natural", ""), 2, "--natural: is empty; give a folder of photographs, or builtin"),
        (("--images", "{flat}"), 3, "flat: the good images show one colour and nothing else"),
        (("--precision", "fp8"), 2, "invalid choice: 'fp8'"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    dataset: Path,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[tuple[str, ...], int, str],
) -> None:
    more, code, complaint = case
    flat = tmp_path / "flat"
    flat.mkdir()
    for index in range(12):
        cv2.imwrite(str(flat / f"{index}.png"), np.full((140, 150, 3), 90, np.uint8))
    filled = [part.format(recipe=recipe, flat=flat) for part in more]
    assert main(train_arguments(dataset, tmp_path / "r", *filled)) == code
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r" / "recipe.yaml").exists()


@pytest.mark.parametrize(
    "case",
    [
        (("--threshold", "nan"), 2, "--threshold nan: is not a finite number"),
        (("--limit", "-1"), 2, "must not be negative"),
        (("--html", "/nowhere/a.html"), 2, "--html /nowhere/a.html: cannot be written: no such"),
        (("--markdown", "/proc"), 2, "--markdown /proc: is a folder; give a file"),
        (("--recipe", "/nowhere"), 3, "/nowhere: is not a recipe"),
        (
            ("--dataset", "/nowhere"),
            3,
            "/nowhere: is no data set: neither in the layout of MVTec AD",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    dataset: Path,
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[tuple[str, ...], int, str],
) -> None:
    more, code, complaint = case
    arguments = ["evaluate", "--dataset", str(dataset), "--recipe", str(recipe), *more]
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_sizes_of_the_input() -> None:
    assert parse_input("256", 3) == Geometry(256, 256, 3)
    assert parse_input("256X384", 1) == Geometry(256, 384, 1)
    for text in ("", "1x2x3", "-256", "²56"):
        with pytest.raises(ConfigError, match="--input"):
            parse_input(text, 3)
