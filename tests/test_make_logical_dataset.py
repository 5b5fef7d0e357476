"""The data set of logical anomalies: MVTec LOCO's layout, rules kept and broken, the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import logical_scene  # noqa: E402 # the tools are scripts, not a package
import make_logical_dataset as tool  # noqa: E402

SMALL = ["--good=2", "--validation=1", "--test=9", "--size=128"]
LOGICAL = [defect.make for defect in tool.DEFECTS[tool.LOGICAL].values()]
STRUCTURAL = [defect.make for defect in tool.DEFECTS[tool.STRUCTURAL].values()]
RENDERER = logical_scene.Renderer(128)


def export(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "tools" / "make_logical_dataset.py")
    return subprocess.run(
        [sys.executable, script, str(out), *SMALL, *more],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "tray"
    done = export(out)
    assert done.returncode == 0, done.stderr
    assert "30 trays" in done.stdout
    assert "2 to train, 1 to validate, 27 to test" in done.stdout
    return out


def maker(seed: int) -> tool.Maker:
    return tool.Maker(RENDERER, np.random.default_rng(seed))


def test_folders_and_numbers_are_those_asked_for(dataset: Path) -> None:
    found = sorted(str(path.relative_to(dataset)) for path in dataset.rglob("*.png"))
    expected = [f"train/good/{k:03d}.png" for k in range(2)] + ["validation/good/000.png"]
    expected += [f"test/good/{k:03d}.png" for k in range(9)]
    for kind in tool.DEFECTS:
        expected += [f"test/{kind}/{k:03d}.png" for k in range(9)]
        expected += [f"ground_truth/{kind}/{k:03d}/000.png" for k in range(9)]
    assert found == sorted(expected)


def test_every_mask_holds_one_defect_that_the_config_describes(dataset: Path) -> None:
    config = json.loads((dataset / "defects_config.json").read_text())
    described = {entry["pixel_value"]: entry["defect_name"] for entry in config}
    assert len(described) == len(config) == 9
    for kind, defects in tool.DEFECTS.items():
        names = []
        for path in sorted((dataset / "ground_truth" / kind).rglob("000.png")):
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert mask is not None
            assert mask.shape == (128, 128)
            (value,) = set(np.unique(mask).tolist()) - {0}
            names.append(described[value])
        assert names == (list(defects) * 9)[:9]
    assert all(0 < entry["saturation_threshold"] <= 1 for entry in config)
    assert all(entry["relative_saturation"] is True for entry in config)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    dataset: Path, tmp_path: Path
) -> None:
    assert export(tmp_path / "again").returncode == 0
    assert export(tmp_path / "other", "--seed=1").returncode == 0
    paths = [path.relative_to(dataset) for path in dataset.rglob("*.*") if path.is_file()]
    assert len(paths) == 49
    for path in paths:
        assert (tmp_path / "again" / path).read_bytes() == (dataset / path).read_bytes()
    first = Path("train/good/000.png")
    assert (tmp_path / "other" / first).read_bytes() != (dataset / first).read_bytes()


def test_every_kind_of_part_and_the_empty_pocket_occur_in_good_trays() -> None:
    found = {maker(seed).kinds for seed in range(20)}
    assert len(found) == 2  # the pair is green, or it is blue
    assert set("".join(found)) == {*logical_scene.PARTS, logical_scene.EMPTY}


@pytest.mark.parametrize("make", LOGICAL, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("seed", range(5))
def test_what_is_marked_is_where_the_rule_is_broken(
    make: Callable[[tool.Maker], tool.Marked], seed: int
) -> None:
    there = maker(seed)
    good = there.render(there.kinds).image.astype(int)
    marked = make(there)
    changed = np.abs(marked.image.astype(int) - good).max(axis=2) > 25
    assert changed.sum() > 60
    near = cv2.dilate(marked.mask.astype(np.uint8), np.ones((9, 9)))  # shadows lie beside the parts
    assert near[changed].mean() > 0.97
    places, _ = cv2.connectedComponents(marked.mask.astype(np.uint8))
    assert places - 1 == (2 if make.__name__ in ("swapped", "misplaced", "mismatched") else 1)


@pytest.mark.parametrize("make", STRUCTURAL, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("seed", range(5))
def test_a_structural_anomaly_changes_nothing_but_what_is_marked(
    make: Callable[[tool.Maker], tool.Marked], seed: int
) -> None:
    there = maker(seed)
    good = there.render(there.kinds).image.astype(int)
    marked = make(there)
    changed = np.abs(marked.image.astype(int) - good).max(axis=2) > 25
    assert marked.mask.sum() > 4
    assert changed[marked.mask].mean() > 0.3
    assert not changed[
        ~cv2.dilate(marked.mask.astype(np.uint8), np.ones((5, 5))).astype(bool)
    ].any()


def test_an_existing_folder_and_senseless_numbers_are_refused(tmp_path: Path) -> None:
    done = export(tmp_path)
    assert done.returncode == 2
    assert "exists; give a new folder" in done.stderr
    for senseless in ("--good=-1", "--seed=-1", "--size=100"):
        done = export(tmp_path / "new", senseless)
        assert done.returncode == 2
        assert not (tmp_path / "new").exists()
