"""The composition root, in this process: each kind of source to its end, and small decisions."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import structlog
from daemon_kit import make_recipe, noise, write_config, write_parts

from efficientad_stream import config
from efficientad_stream.app import make_policy, open_journal
from efficientad_stream.cli import main
from efficientad_stream.core import wire
from efficientad_stream.core.messages import DecisionBody
from efficientad_stream.core.recipe import Geometry, Quantiles, Recipe, ThresholdChoice
from efficientad_stream.core.types import Policy


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    make_recipe(folder / "grey", channels=1)
    make_recipe(folder / "colour", channels=3)
    return folder


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    yield
    gc.unfreeze()
    structlog.reset_defaults()


def recorded(path: Path) -> list[DecisionBody]:
    """The bodies of all decisions in the journal of configuration ``path``."""
    journal = open_journal(config.load(path).journal)
    try:
        return [wire.decode_decision(h, b).body for _, h, b in journal.read(1, 500, 500)]
    finally:
        journal.close()


def video(path: Path) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (96, 64))
    for n in range(6):
        writer.write(cv2.resize(noise(n), (96, 64)))
    writer.release()
    return str(path)


@pytest.mark.parametrize(
    ("kind", "colour"), [("file", "colour"), ("images", "grey"), ("simulated", "colour")]
)
def test_a_finite_source_runs_to_its_end(
    tmp_path: Path, recipes: Path, kind: str, colour: str
) -> None:
    source: dict[str, Any] = {"kind": kind, "grey": colour == "grey"}
    if kind == "file":
        source |= {"path": video(tmp_path / "belt.avi"), "start_frame": 2}
    elif kind == "images":
        source |= {"path": str(write_parts(tmp_path / "parts", "pnup")), "labelled": True}
    else:
        source |= {"parts": 4, "width": 128, "height": 96}
    path = write_config(tmp_path, recipes / colour, source, batch={"max_frames": 1})
    assert main(["run", str(path)]) == 0
    found = recorded(path)
    first = 3 if kind == "file" else 1
    assert [body.frame_id for body in found] == list(range(first, first + 4))
    unreadable = [3] if kind == "images" else []
    assert [b.frame_id for b in found if b.reason == "unreadable"] == unreadable
    assert sum(b.score is not None for b in found) == 4 - len(unreadable)
    assert all(b.truth == "parts" for b in found) if kind == "images" else True


def test_a_source_that_turns_out_to_be_wrong_ends_with_its_line(
    tmp_path: Path, recipes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"kind": "file", "path": video(tmp_path / "belt.avi"), "start_frame": 60}
    path = write_config(tmp_path, recipes / "colour", source)
    assert main(["run", str(path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "source.start_frame: 60" in last
    assert last.endswith("ends after 6 frames")


RECIPE = Recipe(
    "r", 1, "S", Geometry(128, 128), Quantiles(0, 1, 0, 1),
    ThresholdChoice(0.75, "manual", "", 1), "0" * 64,
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "policy"),
    [
        ({}, Policy(0.75, 0)),
        ({"threshold": 0.0}, Policy(0.0, 0)),
        ({"deadline_ms": 12.5}, Policy(0.75, 12_500)),
        ({"deadline_ms": 0.0001}, Policy(0.75, 1)),  # short is not the same as none
    ],
)
def test_policy(more: dict[str, float], policy: Policy) -> None:
    station = config.Config(
        station="s", recipe="r", source=config.SimulatedSource(), **more  # type: ignore[arg-type]
    )  # fmt: skip
    assert make_policy(station, RECIPE) == policy
