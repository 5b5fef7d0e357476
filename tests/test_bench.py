"""``bench``: real measurements of small networks, and what it says to wrong arguments."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from efficientad_stream.backends.native import library
from efficientad_stream.cli import main
from efficientad_stream.commands.bench.candidates import Candidate
from efficientad_stream.commands.bench.measure import errors, interleaved, ratio
from efficientad_stream.core.types import PixelArray, Scores
from efficientad_stream.model.operations import operations

SMALL = ["bench", "--inputs", "128", "--rounds", "3"]


def test_operations_are_those_of_the_paper_networks() -> None:
    """By hand for S at 256 px: outputs x inputs x filter x channels x 2, the large layers."""
    large = 2 * 2 * (
        2 * 123**2 * 256 * 128 * 16 + 2 * 59**2 * 256 * 256 * 9 + 3 * 56**2 * 384 * 256 * 16
    ) // 2  # fmt: skip
    total = operations("S", 256, 256)
    assert 0.9 * total < large < total
    assert total == pytest.approx(75.9e9, rel=0.001)
    assert operations("M", 256, 256) > 3 * total


def test_rows_tell_the_whole_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "rows.json", tmp_path / "rows.md"
    more = ["--batches", "1", "2", "--compare", "--threads", "2", "--frame", "150x200"]
    assert main([*SMALL, *more, "--json", str(out), "--markdown", str(page)]) == 0
    rows = json.loads(out.read_text())
    names = ["cpu", "torch_cpu", "eager"] if _native() else ["torch_cpu", "eager"]
    assert [(row["name"], row["batch"]) for row in rows] == [(n, b) for b in (1, 2) for n in names]
    for row in rows:
        assert row["model"] == "S"
        assert row["size"] == "128x128"
        assert row["frame"] == "150x200"
        assert row["precision"] == "fp32"
        assert row["threads"] == 2
        assert row["rounds"] == 3
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p999_ms"]
        assert row["fps"] == pytest.approx(1000 * row["batch"] / row["p50_ms"])
        assert row["roof_share"] > 0
        assert row["score_error"] < 1e-4
        assert row["map_error"] < 1e-3
        eager = next(r for r in rows if r["name"] == "eager" and r["batch"] == row["batch"])
        assert row["ratio_to_eager"] == pytest.approx(eager["p50_ms"] / row["p50_ms"])
    table = page.read_text()
    assert table in capsys.readouterr().out
    assert table.count("\n| ") == 1 + len(rows)


def test_a_recipe_brings_its_networks_and_its_input(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    import efficientad_stream

    recipe = Path(efficientad_stream.__file__).parent / "assets" / "demo_recipe"
    images = data_dir / "mtd" / "test" / "crack"
    where = ["--recipe", str(recipe), "--images", str(images)]
    assert main(["bench", *where, "--rounds", "3", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["size"] for row in rows} == {"128x160"}
    assert all(row["ratio_to_eager"] is None for row in rows)
    assert all(row["score_error"] < 1e-4 and row["map_error"] < 1e-3 for row in rows)


class Fake:
    """Two candidates that only note when they are asked."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self.name, self.asked = name, asked

    def score(self, frames: Sequence[PixelArray]) -> list[Scores]:
        self.asked.append(f"{self.name}{len(frames)}")
        return []

    def close(self) -> None:
        pass


def test_candidates_take_turns_and_an_interrupt_keeps_whole_rounds() -> None:
    asked: list[str] = []
    frame = np.zeros((1, 1), np.uint8)
    both: list[Candidate] = [Fake("a", asked), Fake("b", asked)]
    times = interleaved(both, [[frame], [frame, frame]], 10, lambda index: index < 4)
    assert asked == ["a1", "a1", "b1", "b1", "a1", "b1", "a2", "b2", "a1", "b1", "a2", "b2"]
    assert {name: len(found) for name, found in times.items()} == {"a": 4, "b": 4}


def test_ratios_are_of_medians_and_errors_relative() -> None:
    times = {"cpu": [1.0, 2.0, 30.0], "eager": [5.0, 6.0, 90.0]}
    assert ratio(times, "cpu") == 3
    assert ratio({"cpu": [1.0]}, "cpu") is None
    one = Scores(1.1, 0, 0, np.array([[0, -4]], np.float32))
    other = Scores(1.0, 0, 0, np.array([[0.5, -5]], np.float32))
    scores, maps = errors([one], [other])
    assert math.isclose(scores, 0.1, abs_tol=1e-9)
    assert math.isclose(maps, 0.2, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "2"], "--rounds 2: must lie between 3 and"),
        (["--batches", "1", "0"], "--batches 0: must lie between 1 and 64"),
        (["--threads", "-1"], "--threads -1: must lie between 0 and 256"),
        (["--inputs", "100"], "--input 100: "),
        (["--inputs", "x"], "--input x: give 256, or HEIGHTxWIDTH"),
        (["--frame", "100"], "--frame 100: give HEIGHTxWIDTH"),
        (["--frame", "0x5"], "--frame 0x5: sides must lie between 1 and"),
        (["--images", "/nowhere"], "/nowhere"),
        (["--backends", "abacus"], "abacus"),
        (["--json", "/nowhere/x.json"], "--json /nowhere/x.json: cannot be written"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--backends", "torch_cpu", *arguments]) in {2, 3}
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error


def _native() -> bool:
    try:
        library.load()
    except library.NativeUnavailableError:
        return False
    return True
