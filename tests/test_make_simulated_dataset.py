"""The exported data set: MVTec's layout, masks that match, the same files every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from efficientad_stream.sources.rendering.defects import DEFECTS

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--good=3", "--test-good=2", "--defects=1", "--lines=2", "--width=160", "--height=128"]


def export(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "tools" / "make_simulated_dataset.py")
    return subprocess.run(
        [sys.executable, script, str(out), *SMALL, *more],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "flange"
    done = export(out)
    assert done.returncode == 0, done.stderr
    assert "3 to train, 12 to test" in done.stdout
    return out


def test_folders_and_numbers_are_those_asked_for(dataset: Path) -> None:
    found = sorted(str(path.relative_to(dataset)) for path in dataset.rglob("*.png"))
    expected = [f"train/good/{k:04d}.png" for k in range(3)]
    expected += [f"test/good/{k:04d}.png" for k in range(2)]
    expected += [f"test/{defect}/0000.png" for defect in DEFECTS]
    expected += [f"ground_truth/{defect}/0000_mask.png" for defect in DEFECTS]
    assert found == sorted(expected)


def test_every_defect_has_a_mask_of_its_frames_size(dataset: Path) -> None:
    for defect in DEFECTS:
        frame = cv2.imread(str(dataset / "test" / defect / "0000.png"), cv2.IMREAD_UNCHANGED)
        path = dataset / "ground_truth" / defect / "0000_mask.png"
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert frame is not None
        assert mask is not None
        assert frame.shape == (128, 160, 3)
        assert mask.shape == (128, 160)
        assert 0 < (mask == 255).sum() == (mask > 0).sum()


def test_the_same_arguments_give_the_same_files(dataset: Path, tmp_path: Path) -> None:
    assert export(tmp_path / "again").returncode == 0
    for path in dataset.rglob("*.png"):
        again = tmp_path / "again" / path.relative_to(dataset)
        assert again.read_bytes() == path.read_bytes()


def test_an_existing_folder_and_senseless_numbers_are_refused(tmp_path: Path) -> None:
    done = export(tmp_path)
    assert done.returncode == 2
    assert "exists; give a new folder" in done.stderr
    done = export(tmp_path / "new", "--lines=0")
    assert done.returncode == 2
    assert not (tmp_path / "new").exists()
