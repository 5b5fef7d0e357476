"""Distilling in several sittings: a real distillation, interrupted, moved, and gone on with."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from efficientad_stream.core.errors import ArtifactError, ConfigError

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
    whole = archive.read_bytes()
    with pytest.raises(ConfigError, match="quality 60; give fewer"):
        pack(photographs, archive, 0.001)
    assert archive.read_bytes() == whole  # what was there before stays


def test_pieces_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill_in_pieces, "PIECE", 1000)
    state = tmp_path / "state_s"
    state.mkdir()
    wanted = {"a.ckpt": bytes(range(256)) * 10, "a.csv": b"1,2\n", "empty": b""}
    for name, data in wanted.items():
        (state / name).write_bytes(data)
    for _ in range(2):  # what was there before is replaced
        split_pieces(state, tmp_path / "pieces")
    parts = (tmp_path / "pieces").glob("*.[0-9]*")
    assert max(piece.stat().st_size for piece in parts) == 1000
    elsewhere = tmp_path / "other" / "state_s"
    join_pieces(tmp_path / "pieces", elsewhere)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == wanted


@pytest.mark.parametrize("harm", ["a.ckpt.001", "list.json", "torn"])
def test_pieces_that_are_not_whole_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(distill_in_pieces, "PIECE", 1000)
    state, pieces = tmp_path / "state_s", tmp_path / "pieces_s"
    state.mkdir()
    (state / "a.ckpt").write_bytes(bytes(range(256)) * 10)
    split_pieces(state, pieces)
    if harm == "torn":
        (pieces / "a.ckpt.002").write_bytes(b"")
    else:
        (pieces / harm).unlink()
    before = sorted(pieces.iterdir())
    for _ in range(2):
        with pytest.raises(ArtifactError, match="not whole; bring all pieces"):
            join_pieces(pieces, tmp_path / "other" / "state_s")
    assert sorted(pieces.iterdir()) == before


def test_an_archive_that_was_cut_is_refused_each_time(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "photographs.tar"
    pack(photographs, archive, 10)
    with tarfile.open(archive) as tar:
        second = tar.getmembers()[2].offset
    whole = archive.read_bytes()
    for cut in (second, second + 700, 100, 0):
        archive.write_bytes(whole[:cut])
        assert main(["run", str(archive), str(tmp_path / "work")]) == 3
        assert "pack it again" in capsys.readouterr().err.splitlines()[-1]
    assert main(["run", str(tmp_path / "none.tar"), str(tmp_path / "work")]) == 3
    assert not any((tmp_path / "work").glob("state*"))


@pytest.mark.parametrize("number", ["nan", "-1", "0", "inf"])
def test_minutes_are_a_number_above_0(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "a.tar", "work", f"--minutes={number}"])
    assert "not a number above 0" in capsys.readouterr().err


def test_a_sitting_that_fails_keeps_the_pieces_of_the_one_before(
    photographs: Path, tmp_path: Path
) -> None:
    archive, state = tmp_path / "photographs.tar", tmp_path / "work" / "state_s"
    pack(photographs, archive, 10)
    state.mkdir(parents=True)
    (state / "a.ckpt").write_bytes(b"progress")
    split_pieces(state, tmp_path / "work" / "pieces_s")
    (state / "a.ckpt").unlink()
    assert main(["run", str(archive), str(tmp_path / "work"), "--", "--no-such-option"]) == 2
    assert (tmp_path / "work" / "pieces_s" / "a.ckpt.000").read_bytes() == b"progress"
    assert (state / "a.ckpt").read_bytes() == b"progress"


def test_a_sitting_ends_in_time_and_tells_it_from_an_end_of_its_own() -> None:
    script = (
        "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise SystemExit({})"
    )
    for code in (130, 0):
        assert sit([sys.executable, "-c", script.format(code)], 1.0) == code
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

    for minutes in (0.35, 0.7, 1.4):  # a slow machine needs longer to have something to keep
        assert sitting("one", minutes, 100_000) == 130
        if (tmp_path / "one" / "pieces_s").is_dir():
            break
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "pieces_s").rename(tmp_path / "two" / "pieces_s")
    assert any((tmp_path / "two" / "pieces_s").iterdir())
    assert "resumed at step" not in "".join(capfd.readouterr())
    assert sitting("two", minutes, 100_000) == 130
    assert "resumed at step" in "".join(capfd.readouterr())
    assert sitting("three", 4, 2) == 0
    assert (tmp_path / "three" / "state_s" / "teacher_s.safetensors").is_file()
