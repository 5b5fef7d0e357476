"""A real daemon for tests: a recipe with random weights, a folder of parts, a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from efficientad_stream.core.endpoint import Endpoints
from efficientad_stream.core.messages import Decision
from efficientad_stream.core.recipe import Geometry, Quantiles, Recipe, ThresholdChoice
from efficientad_stream.core.types import PixelArray
from efficientad_stream.model.artifact import round_to_half, save_recipe
from efficientad_stream.model.networks import EfficientAD
from efficientad_stream.subscriber import Event, Subscriber

ROOT = Path(__file__).resolve().parent.parent
FREE = "tcp://127.0.0.1:*"
SIZE = 128


def make_recipe(folder: Path, channels: int = 3) -> Path:
    """A real network of random weights, whose maps are normalised to noise."""
    torch.manual_seed(3)
    net = EfficientAD("S").eval().requires_grad_(False)
    round_to_half(net)
    with torch.inference_mode():
        raw = net.raw_maps(torch.rand(1, 3, SIZE, SIZE))
    st, ae = (np.quantile(m.numpy(), (0.9, 0.995)).tolist() for m in raw)
    recipe = Recipe(
        "noise", 1, "S", Geometry(SIZE, SIZE, channels), Quantiles(st[0], st[1], ae[0], ae[1]),
        ThresholdChoice(1.0, "manual", "noise", 1), "0" * 64,
    )  # fmt: skip
    save_recipe(folder, recipe, net)
    return folder


def noise(seed: int) -> PixelArray:
    """Frames like those that the recipe was normalised to."""
    return np.random.default_rng(seed).integers(0, 256, (150, 200, 3), np.uint8)


def plain(seed: int) -> PixelArray:
    """Frames of one colour each."""
    return np.full((150, 200, 3), 10 * seed % 256, np.uint8)


def write_parts(folder: Path, kinds: str) -> Path:
    """One file for each letter: (n)oise, (p)lain, (u)nreadable."""
    folder.mkdir()
    for n, kind in enumerate(kinds):
        path = folder / f"{n:03d}.png"
        if kind == "u":
            path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        else:
            cv2.imwrite(str(path), noise(n) if kind == "n" else plain(n))
    return folder


def write_config(folder: Path, recipe: Path, source: dict[str, Any], **more: Any) -> Path:
    """A configuration with free ports; ``more`` are further sections."""
    publish = {"decisions": FREE, "heatmaps": FREE, "control": FREE}
    path = folder / "station.yaml"
    content = {"station": "st1", "recipe": str(recipe), "source": source, "publish": publish}
    path.write_text(yaml.safe_dump({**content, **more}))
    return path


class Run:
    """``efficientad-stream run`` in a process of its own."""

    def __init__(self, config: Path, *overrides: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "efficientad_stream", "run", str(config)]
        self.process = subprocess.Popen(
            [*command, *(word for text in overrides for word in ("--set", text))],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "CI": "", **(env or {})},
        )
        self.lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            line = json.loads(text) if text.startswith("{") else {"event": text.rstrip()}
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def said(self, event: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """The first log line ``event``; waits for it."""

        def find() -> dict[str, Any] | None:
            return next((line for line in self.lines if line["event"] == event), None)

        with self._changed:
            self._changed.wait_for(lambda: find() or not self._reader.is_alive(), timeout_s)
            found = find()
        assert found is not None, self.lines
        return found

    def where(self) -> Endpoints:
        """Its sockets, as soon as they are bound."""
        line = self.said("inspecting")
        return Endpoints(line["decisions"], line["heatmaps"], line["control"])

    def end(self, signum: signal.Signals | None = None, timeout_s: float = 60.0) -> float:
        """Send ``signum``, wait for the end; seconds that it took."""
        start = time.monotonic()
        if signum is not None:
            self.process.send_signal(signum)
        self.process.wait(timeout_s)
        took = time.monotonic() - start
        self._reader.join(10)
        return took

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


def listen(
    subscriber: Subscriber, until_decisions: int | None = None, timeout_s: float = 60.0
) -> list[Event]:
    """Everything until so many decisions have come, or the station has said goodbye."""
    events: list[Event] = []
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        events += subscriber.poll(0.2)
        if until_decisions is not None and len(decisions(events)) >= until_decisions:
            return events
        if subscriber.finished:
            return events
    raise AssertionError(f"only {len(decisions(events))} decisions came")


def decisions(events: Sequence[Event]) -> list[Decision]:
    """The decisions among ``events``."""
    return [event for event in events if isinstance(event, Decision)]
