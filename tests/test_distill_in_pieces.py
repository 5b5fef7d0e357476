"""Distilling in several sittings: a real distillation, interrupted, moved, and gone on with."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import distill_in_pieces  # noqa: E402
from distill_in_pieces import join_pieces, main, pack, parse, sit, split_pieces, unpack  # noqa: E402


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        small = rng.integers(0, 256, (12, 16, 3), np.uint8)
        large = cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index}.png"), large)
    return folder


def test_photographs_are_packed_as_well_as_fits(photographs: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photographs.tar"
    assert pack(photographs, archive, 10) == 95
    folder = unpack(archive, tmp_path / "work")
    found = [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    assert [image.shape for image in found if image is not None] == [(256, 341, 3)] * 4
    with pytest.raises(SystemExit, match="quality 60; give fewer"):
        pack(photographs, archive, 0.001)
    assert not archive.exists()


def test_pieces_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill_in_pieces, "PIECE", 1000)
    state = tmp_path / "state_s"
    state.mkdir()
    wanted = {"a.ckpt": bytes(range(256)) * 10, "a.csv": b"1,2\n", "empty": b""}
    for name, data in wanted.items():
        (state / name).write_bytes(data)
    for _ in range(2):  # what was there before is replaced
        split_pieces(state, tmp_path / "pieces")
    assert max(piece.stat().st_size for piece in (tmp_path / "pieces").iterdir()) == 1000
    elsewhere = tmp_path / "other" / "state_s"
    join_pieces(tmp_path / "pieces", elsewhere)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == wanted


def test_a_sitting_ends_in_time_and_tells_it_from_an_end_of_its_own() -> None:
    script = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"
    assert sit([sys.executable, "-c", script], 1.0) == 130
    assert sit([sys.executable, "-c", "raise SystemExit(3)"], 30) == 3


def test_what_follows_two_dashes_is_for_distill() -> None:
    args = parse(["run", "a.tar", "work", "--steps", "5", "--", "--steps-of-its-own", "7"])
    assert args.steps == 5
    assert args.rest == ["--steps-of-its-own", "7"]


@pytest.mark.timeout(300)
def test_a_distillation_in_two_sittings_on_two_machines(
    photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "photographs.tar"
    pack(photographs, archive, 10)
    options = ["--", "--crop", "64", "--batch", "2", "--views", "4"]

    def sitting(work: str, minutes: float, steps: int) -> int:
        where = ["run", str(archive), str(tmp_path / work), "--minutes", str(minutes)]
        return main([*where, "--steps", str(steps), *options])

    assert sitting("one", 0.35, 100_000) == 130
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "pieces").rename(tmp_path / "two" / "pieces")
    assert any((tmp_path / "two" / "pieces").iterdir())
    assert "resumed at step" not in "".join(capfd.readouterr())
    assert sitting("two", 0.2, 100_000) == 130
    assert "resumed at step" in "".join(capfd.readouterr())
    assert sitting("three", 4, 2) == 0
    assert (tmp_path / "three" / "state_s" / "teacher_s.safetensors").is_file()
