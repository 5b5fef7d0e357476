"""Distil teachers on a borrowed machine: little to send, any number of short sittings.

    python tools/distill_in_pieces.py pack photographs/ build/photographs.tar --mebibytes 48
    python tools/distill_in_pieces.py run build/photographs.tar build/distill --minutes 9 \
        --size S --steps 60000 -- --device cuda --precision bf16 --batch-norm --cosine --lr 1e-3

``pack`` brings photographs to a short side of at most 256 px and to JPEG, at the best quality that
fits. ``run`` is ``efficientad-stream distill`` for so many minutes; the same command again goes on
where it stopped, on another machine too: what a sitting leaves is also put into ``pieces_s/`` (or
``_m``), in files of at most 15 MiB, and a folder that holds nothing but them is enough to go on.
All after ``--`` goes to ``distill``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from efficientad_stream.core.errors import ArtifactError, ConfigError, EfficientADError

SHORT_SIDE = 256
QUALITIES = (95, 90, 85, 80, 70, 60)
MEBIBYTE = 1 << 20
PIECE = 15 * MEBIBYTE
COUNT_FILE = "count"
LIST_FILE = "list.json"
NOT_WHOLE = "is missing or not whole; bring all pieces of one sitting, or none to begin anew"
GRACE_S = 120
"""For a last step and the checkpoint."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; what follows ``--`` is ``rest``."""
    own, rest = list(argv), []
    if "--" in own:
        at = own.index("--")
        own, rest = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description="Distil a teacher in several sittings.")
    actions = parser.add_subparsers(dest="action", required=True)
    pack = actions.add_parser("pack", help="make an archive of photographs")
    pack.add_argument("images", type=Path)
    pack.add_argument("archive", type=Path)
    pack.add_argument("--mebibytes", type=positive, default=48.0, help="the most it may be")
    run = actions.add_parser("run", help="distil, or go on")
    run.add_argument("archive", type=Path)
    run.add_argument("work", type=Path)
    run.add_argument("--minutes", type=positive, default=9.0, help="of this sitting")
    run.add_argument("--size", choices=("S", "M"), default="S")
    run.add_argument("--steps", type=int, default=60_000, help="in all sittings together")
    args = parser.parse_args(own)
    args.rest = rest
    return args


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def pack(images: Path, archive: Path, mebibytes: float) -> int:
    """Write ``archive``; return the quality of its JPEGs.

    Raises:
        ArtifactError: nothing there.
        ConfigError: it does not fit at the lowest quality, or cannot be written.
    """
    from efficientad_stream.model.data import list_images, read_image

    paths = list_images(images)
    if not archive.absolute().parent.is_dir():
        raise ConfigError(f"{archive}: cannot be written: no such folder")
    fresh = archive.with_suffix(".new")
    for quality in QUALITIES:
        with tarfile.open(fresh, "w") as tar:
            for index, path in enumerate(paths):
                _add(tar, f"{index:05}.jpg", _jpeg(read_image(path, 3), quality))
            _add(tar, COUNT_FILE, str(len(paths)).encode())
        size = fresh.stat().st_size / MEBIBYTE
        print(f"quality {quality}: {len(paths)} photographs, {size:.1f} MiB", flush=True)
        if size <= mebibytes:
            fresh.replace(archive)
            return quality
    fresh.unlink()
    raise ConfigError(
        f"{images}: more than {mebibytes:g} MiB at quality {QUALITIES[-1]}; give fewer"
    )


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    scale = SHORT_SIDE / min(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def unpack(archive: Path, work: Path) -> Path:
    """The folder of photographs in ``work``, from ``archive`` unless it is there.

    Raises:
        ArtifactError: no archive, or not all of one.
    """
    folder = work / "photographs"
    if folder.is_dir():
        return folder
    fresh = work / "photographs.new"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(fresh, filter="data")
        wanted = int((fresh / COUNT_FILE).read_text())
        (fresh / COUNT_FILE).unlink()
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ArtifactError(f"{archive}: is not a whole archive; pack it again") from error
    if len(list(fresh.iterdir())) != wanted:
        raise ArtifactError(f"{archive}: has not all of its {wanted} photographs; pack it again")
    fresh.rename(folder)
    return folder


def run(args: argparse.Namespace) -> int:
    """One sitting; 0 if the teacher is done, 130 if there is more to do, else what went wrong.

    Raises:
        ArtifactError: the archive, or the pieces of an earlier sitting, are not whole.
    """
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    state, pieces = work / f"state_{args.size.lower()}", work / f"pieces_{args.size.lower()}"
    join_pieces(pieces, state)
    photographs = unpack(args.archive, work)
    state.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "efficientad_stream", "distill", "--images", str(photographs),
        "--out", str(state / f"teacher_{args.size.lower()}.safetensors"), "--size", args.size,
        "--steps", str(args.steps), *args.rest,
    ]  # fmt: skip
    code = sit(command, args.minutes * 60)
    if any(state.iterdir()):
        split_pieces(state, pieces)
        print(f"pieces of at most {PIECE // MEBIBYTE} MiB are in {pieces}")
    return code


def sit(command: Sequence[str], seconds: float) -> int:
    """Run ``command``, interrupted after so long or when we are; its exit code."""
    child = subprocess.Popen(command)  # noqa: S603 - ours
    try:
        return child.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.send_signal(signal.SIGINT)
    try:
        return child.wait(GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        return child.wait()


def split_pieces(state: Path, pieces: Path) -> None:
    """Copy the files of ``state`` into ``pieces``, in parts of at most ``PIECE``, and a list."""
    fresh = pieces.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    whole: dict[str, str] = {}
    for file in sorted(path for path in state.iterdir() if path.is_file()):
        data = file.read_bytes()
        whole[file.name] = hashlib.sha256(data).hexdigest()
        for part, begin in enumerate(range(0, max(1, len(data)), PIECE)):
            (fresh / f"{file.name}.{part:03}").write_bytes(data[begin : begin + PIECE])
    (fresh / LIST_FILE).write_text(json.dumps(whole))
    shutil.rmtree(pieces, ignore_errors=True)
    fresh.rename(pieces)


def join_pieces(pieces: Path, state: Path) -> None:
    """What ``split_pieces`` made, as files in ``state``, unless there are some.

    Raises:
        ArtifactError: a piece is missing or not whole.
    """
    if not pieces.is_dir() or (state.is_dir() and any(state.iterdir())):
        return
    fresh = state.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        whole: dict[str, str] = json.loads((pieces / LIST_FILE).read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{pieces}/{LIST_FILE}: {NOT_WHOLE}") from error
    for name, digest in whole.items():
        parts = sorted(pieces.glob(f"{name}.[0-9][0-9][0-9]"))
        data = b"".join(part.read_bytes() for part in parts)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"{pieces}/{name}.*: {NOT_WHOLE}")
        (fresh / name).write_bytes(data)
    if state.is_dir():
        state.rmdir()
    fresh.rename(state)


def main(argv: Sequence[str]) -> int:
    """Pack or run."""
    args = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    try:
        if args.action == "pack":
            pack(args.images, args.archive, args.mebibytes)
            code = 0
        else:
            code = run(args)
    except EfficientADError as error:
        print(f"distill_in_pieces: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(f"{time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
