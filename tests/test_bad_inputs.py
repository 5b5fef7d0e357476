"""What is asked for wrongly is answered by one line, the documented exit code and no traceback."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import structlog
import torch
import yaml
from daemon_kit import FREE, ROOT, Run, make_recipe, noise, write_config, write_parts

from efficientad_stream import cli
from efficientad_stream.model.artifact import save_teacher
from efficientad_stream.model.networks import PDN
from efficientad_stream.sinks.journal.reader import records

LONG = "/" + "x" * 5000
DIGITS = "9" * 5000


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, a teacher, twelve parts, and things that are none of these."""
    root = tmp_path_factory.mktemp("kit")
    make_recipe(root / "recipe")
    write_parts(root / "parts", "n" * 12)
    torch.manual_seed(0)
    save_teacher(root / "teacher.safetensors", PDN("S"), {})
    torch.save(PDN("S").state_dict(), root / "published.pth")
    (root / "empty").mkdir()
    (root / "text").write_text("neither this nor that")
    return root


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


Answer = Callable[..., str]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str], kit: Path) -> Iterator[Answer]:
    """Runs a command ("{kit}" is the folder above); its only line, after a look at its form."""

    def ask(code: int, *argv: object) -> str:
        given = [str(word).replace("{kit}", str(kit)) for word in argv]
        assert cli.main(given) == code, capsys.readouterr().err
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if line.startswith("efficientad-stream: ")]
        assert said == lines[-1:], lines
        assert not any("Traceback" in line for line in lines)
        return said[0].removeprefix("efficientad-stream: ")

    yield ask
    structlog.reset_defaults()


SOURCES = [
    ("{kind: v4l2, device: /dev/video99}", 2, "/dev/video99: no such camera; is it plugged in?"),
    ("{kind: v4l2, device: '{kit}/text'}", 2, "is no video device"),
    ("{kind: v4l2, device: /dev/null}", 2, "/dev/null: is no video device"),
    ("{kind: v4l2, device: /proc}", 2, "/proc: is no video device"),
    ("{kind: images, path: /nowhere}", 2, "/nowhere: is not a folder"),
    ("{kind: images, path: '{kit}/text'}", 2, "text: is not a folder"),
    ("{kind: images, path: '{kit}/empty'}", 2, "empty: holds no image"),
    ("{kind: images, path: '{kit}/parts', grey: true}", 2, "set source.grey: false"),
    (f"{{kind: images, path: {LONG}}}", 1, "File name too long"),
    ("{kind: file, path: /nowhere.mp4}", 2, "no such video file"),
    ("{kind: file, path: '{kit}/parts'}", 2, "no such video file"),
    ("{kind: file, path: '{kit}/text'}", 2, "not a video that can be read, or truncated"),
    ("{kind: file, path: /dev/null}", 2, "no such video file"),
    ("{kind: imges, path: x}", 2, "unknown source kind 'imges'; did you mean images?"),
]


@pytest.mark.parametrize("case", SOURCES, ids=lambda case: str(case[0])[:60])
def test_sources(answer: Answer, kit: Path, tmp_path: Path, case: tuple[str, int, str]) -> None:
    source, code, words = case
    source = source.replace("{kit}", str(kit))
    config = write_config(tmp_path, kit / "recipe", yaml.safe_load(source))
    assert words in answer(code, "run", config)
    assert not (tmp_path / "journal").exists()


SETTINGS = [
    ("threshold=nan", 2, "expected a number or nothing"),
    ("threshold=.nan", 2, "is not a finite number"),
    ("treshold=1", 2, "did you mean threshold?"),
    ("recipe=/nowhere", 3, "is not a recipe (recipe.yaml is missing)"),
    ("recipe={kit}/text", 3, "is not a recipe"),
    ("publish.decisions=tcp://192.0.2.1:5560", 2, "give an address of this machine"),
    ("publish.decisions=ipc://{kit}/text", 2, "there is a file or folder of that name"),
    ("publish.decisions=ipc://{kit}/empty", 2, "there is a file or folder of that name"),
    ("publish.control=http://x", 2, "is neither tcp://HOST:PORT nor a short ipc://PATH"),
    ("journal.path={kit}/text", 4, "text: cannot be made: File exists; give journal.path a folder"),
    ("journal.path={kit}/text/journal", 4, "Not a directory"),
    ("journal.path=/proc/journal", 4, "/proc/journal: cannot be made: No such file"),
    ("ring.slots=1", 2, "ring.slots: expected a whole number from 2 to 1024, got 1"),
    (f"deadline_ms={DIGITS}", 2, "is not a whole number"),
    ("station.x=1", 2, "station has no keys"),
    ("source", 2, "expected KEY=VALUE"),
]


@pytest.mark.parametrize("case", SETTINGS, ids=lambda case: str(case[0])[:60])
def test_settings(answer: Answer, kit: Path, tmp_path: Path, case: tuple[str, int, str]) -> None:
    setting, code, words = case
    source = {"kind": "images", "path": str(kit / "parts")}
    config = write_config(tmp_path, kit / "recipe", source)
    assert words in answer(code, "run", config, "--set", setting)
    assert (kit / "text").read_text() == "neither this nor that"


@pytest.mark.parametrize("key", ["decisions", "heatmaps", "control"])
def test_a_port_that_is_taken(
    answer: Answer, kit: Path, tmp_path: Path, taken: int, key: str
) -> None:
    source = {"kind": "images", "path": str(kit / "parts")}
    config = write_config(tmp_path, kit / "recipe", source)
    said = answer(4, "run", config, "--set", f"publish.{key}=tcp://127.0.0.1:{taken}")
    assert f"publish.{key}: tcp://127.0.0.1:{taken} is in use by another process" in said


def cut(folder: Path) -> None:
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])


def flip(folder: Path) -> None:
    model = folder / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-1000] ^= 1
    model.write_bytes(data)


def forge(folder: Path) -> None:
    """Cut off, with a hash that vouches for it, and a header that claims to be enormous."""
    data = struct.pack("<Q", 1 << 60) + b"{}"
    (folder / "model.safetensors").write_bytes(data)
    edit(folder, model_sha256=hashlib.sha256(data).hexdigest())


def edit(folder: Path, **changes: object) -> None:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


TAMPERED: list[tuple[Callable[[Path], object], str]] = [
    (cut, "is not the file that recipe.yaml vouches for"),
    (flip, "is not the file that recipe.yaml vouches for"),
    (forge, "not a safetensors file, or truncated"),
    (lambda r: (r / "model.safetensors").unlink(), "cannot be read: No such file"),
    (lambda r: edit(r, size="M"), "student.conv5.bias is missing"),
    (lambda r: edit(r, threshold={"value": float("nan")}), ".nan is not a finite number"),
    (lambda r: (r / "recipe.yaml").write_text("a: &a [x]\nb: *a\n"), "aliases (*name)"),
    (lambda r: (r / "recipe.yaml").write_text(""), "the file is empty"),
    (lambda r: (r / "recipe.yaml").write_bytes(b"\xff\xfe"), "not UTF-8"),
]


@pytest.mark.parametrize(("tamper", "words"), TAMPERED)
def test_tampered_recipes(
    answer: Answer, kit: Path, tmp_path: Path, tamper: Callable[[Path], object], words: str
) -> None:
    recipe = Path(shutil.copytree(kit / "recipe", tmp_path / "recipe"))
    tamper(recipe)
    config = write_config(tmp_path, recipe, {"kind": "images", "path": str(kit / "parts")})
    assert words in answer(3, "run", config)


TRAIN = ["train", "--no-penalty", "--teacher", "{kit}/teacher.safetensors"]
GOOD = [*TRAIN, "--images", "{kit}/parts", "--out", "{kit}/new"]
DISTIL = ["distill", "--images", "{kit}/parts", "--out", "{kit}/new.safetensors"]
WATCH = ["watch", "tcp://127.0.0.1:9"]

COMMANDS = [
    ([], 2, "a command is missing"),
    (["rnu"], 2, "did you mean run?"),
    (["run"], 2, "the following arguments are required: CONFIG"),
    (["run", "/no\nwhere"], 2, "/no\\nwhere: cannot be read: No such file"),
    (["run", "{kit}"], 2, "cannot be read: Is a directory"),
    ([*GOOD, "--steps", "0"], 2, "--steps 0: must be 1 to 100000000"),
    ([*GOOD, "--steps", "-5"], 2, "--steps -5: must be 1 to 100000000"),
    ([*GOOD, "--input", "130"], 2, "130 is not a multiple of 32 from 128 to 1024"),
    ([*GOOD, "--input", DIGITS], 2, "give 256, or HEIGHTxWIDTH"),
    ([*GOOD, "--seed", "1" + "0" * 30], 2, "must lie between 0 and"),
    ([*GOOD, "--batch", "1000000"], 2, "--batch 1000000: must be 1024 or less"),
    ([*GOOD, "--frames", f"0:{DIGITS}"], 2, "give START:STOP"),
    ([*GOOD, "--frames", "0:5"], 2, "--frames is for videos"),
    ([*GOOD, "--false-rejects", "nan"], 2, "must lie between 0 and 1"),
    ([*GOOD, "--limit", "9"], 3, "9 good images are too few"),
    ([*GOOD, "--size", "M"], 2, "the teacher is of size S, not M"),
    ([*TRAIN, "--images", "{kit}/empty", "--out", "{kit}/new"], 3, "holds no image"),
    ([*TRAIN, "--images", "/nowhere", "--out", "{kit}/new"], 3, "is not a folder"),
    ([*TRAIN, "--images", LONG, "--out", "{kit}/new"], 1, "File name too long"),
    ([*TRAIN, "--images", "{kit}/parts", "--out", "{kit}/recipe"], 3, "holds a recipe already"),
    ([*TRAIN, "--images", "{kit}/parts", "--out", "{kit}/text"], 3, "text: is not a folder"),
    ([*DISTIL, "--steps", "0"], 2, "--steps: must be at least 1"),
    ([*DISTIL, "--views", "1000000000"], 2, "--views 1000000000: memory has room for"),
    ([*DISTIL, "--lr", "nan"], 2, "--lr nan: must lie between 0 and 1"),
    ([*DISTIL, "--out", "{kit}/teacher.safetensors"], 3, "exists already"),
    (["evaluate", "--dataset", "{kit}", "--recipe", "{kit}/recipe"], 3, "layout of MVTec AD"),
    (["evaluate", "--dataset", "x", "--recipe", "x", "--threshold", "nan"], 2, "finite"),
    (["evaluate", "--dataset", "x", "--recipe", "x", "--threads", "999999"], 2, "0 and 256"),
    (["teacher", "import", "{kit}/text", "--out", "{kit}/t.safetensors"], 3, "loaded safely"),
    (["teacher", "import", "{kit}/published.pth", "--out", "{kit}/t.pt"], 2, ".safetensors"),
    (["teacher", "show", "{kit}/published.pth"], 3, "not a safetensors file"),
    (["journal", "verify", "/nowhere"], 3, "no such folder, or no segments"),
    (["journal", "ls", "{kit}/text"], 3, "no such folder, or no segments"),
    (["journal", "ls", LONG], 1, "File name too long"),
    (["watch", "nowhere"], 2, "is neither tcp://HOST:PORT nor a short ipc://PATH"),
    (["watch", "tcp://127.0.0.1:*"], 2, "names no port to connect to"),
    ([*WATCH, "--timeout", "nan"], 2, "is not a number of seconds"),
    ([*WATCH, "--station", "a b"], 2, "'a b' is no name of a station"),
    ([*WATCH, "--timeout", "0.2"], 5, "no heartbeat from tcp://127.0.0.1:9 for 0.2 s"),
    ([*WATCH, "--save-heatmaps", "{kit}/text"], 2, "text: File exists"),
    (["demo", "--parts", "0"], 2, "--parts 0: must be 1 or more"),
    (["demo", "--seed", "1" + "0" * 30], 2, "--seed"),
    (["config", "check", "/nowhere"], 2, "No such file"),
]


@pytest.mark.parametrize(("argv", "code", "words"), COMMANDS)
def test_commands(answer: Answer, kit: Path, argv: list[str], code: int, words: str) -> None:
    assert words in answer(code, *argv)
    assert not (kit / "new").exists()


def png(width: int, height: int) -> bytes:
    """A picture that says it is ``width`` x ``height`` and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_every_odd_file_of_a_folder_gets_its_verdict(kit: Path, tmp_path: Path) -> None:
    """Decodable ones are scored, whatever their size, depth and name; the others are INVALID."""
    parts = tmp_path / "parts"
    parts.mkdir()
    good = cv2.imencode(".png", noise(0))[1].tobytes()
    alpha = np.dstack([noise(1), noise(1)[..., 0]])
    pictures: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
        "1px.png": noise(2)[:1, :1],
        "alpha.png": alpha,
        "deep.png": noise(3).astype(np.uint16) * 257,
        "grey.png": noise(4)[..., 0],
        "large.jpg": np.zeros((4000, 5000, 3), np.uint8),
        "thin.png": noise(5)[:1],
    }
    for name, pixels in pictures.items():
        assert cv2.imwrite(str(parts / name), pixels)
    for name in (
        "line\nbreak.png",
        "\u6f22\U0001f600.png",
        "x" * 240 + ".png",
        os.fsdecode(b"\xff.png"),
    ):
        (parts / name).write_bytes(good)
    (parts / "z_bomb.png").write_bytes(png(60_000, 60_000))
    (parts / "z_cut.png").write_bytes(good[: len(good) // 2])
    (parts / "z_dangling.png").symlink_to("/nowhere.png")
    (parts / "z_folder.png").mkdir()
    (parts / "z_loop.png").symlink_to("z_loop.png")
    (parts / "z_none.png").write_bytes(b"")
    os.mkfifo(parts / "z_pipe.png")
    (parts / "round").symlink_to(".")
    config = write_config(tmp_path, kit / "recipe", {"kind": "images", "path": str(parts)})
    with Run(config, f"publish.decisions={FREE}") as run:
        run.end()
        counts = run.said("stopped")
    assert run.process.returncode == 0
    assert counts["pass"] + counts["fail"] == 10
    assert counts["invalid"] == 7
    assert cli.main(["journal", "verify", str(tmp_path / "journal")]) == 0


def test_it_goes_on_when_nobody_reads_what_it_and_its_libraries_say(
    kit: Path, tmp_path: Path
) -> None:
    """The image decoder itself complains of a cut-off file, on standard error."""
    parts = write_parts(tmp_path / "parts", "nn")
    whole = (parts / "000.png").read_bytes()
    (parts / "002.png").write_bytes(whole[: len(whole) // 2])
    config = write_config(tmp_path, kit / "recipe", {"kind": "images", "path": str(parts)})
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    command = [sys.executable, "-m", "efficientad_stream", "run", str(config)]
    process = subprocess.Popen(command, stderr=writer, cwd=ROOT)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(10)
        os.close(reader)
        os.close(writer)
    assert [record.seq for record in records(tmp_path / "journal")] == [1, 2, 3]
