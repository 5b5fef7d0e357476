"""Distil teachers on a borrowed machine: little to send, any number of short sittings.

    python tools/distill_in_pieces.py pack photographs/ build/photographs.tar --mebibytes 48
    python tools/distill_in_pieces.py run build/photographs.tar build/distill --minutes 9 \
        --size S --steps 60000 -- --device cuda --precision bf16 --batch-norm --cosine --lr 1e-3

``pack`` brings photographs to a short side of at most 256 px and to JPEG, at the best quality that
fits. ``run`` is ``efficientad-stream distill`` for so many minutes; the same command again goes on
where it stopped, on another machine too: what a sitting leaves is also put into ``pieces/``, in
files of at most 15 MiB, and a folder that holds nothing but them is enough to go on. All after
``--`` goes to ``distill``.
"""

from __future__ import annotations

import argparse
import io
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SHORT_SIDE = 256
QUALITIES = (95, 90, 85, 80, 70, 60)
MEBIBYTE = 1 << 20
PIECE = 15 * MEBIBYTE
INTERRUPTED = 130
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
    pack.add_argument("--mebibytes", type=float, default=48.0, help="the most it may be")
    run = actions.add_parser("run", help="distil, or go on")
    run.add_argument("archive", type=Path)
    run.add_argument("work", type=Path)
    run.add_argument("--minutes", type=float, default=9.0, help="of this sitting")
    run.add_argument("--size", choices=("S", "M"), default="S")
    run.add_argument("--steps", type=int, default=60_000, help="in all sittings together")
    args = parser.parse_args(own)
    args.rest = rest
    return args


def pack(images: Path, archive: Path, mebibytes: float) -> int:
    """Write ``archive``; return the quality of its JPEGs.

    Raises:
        SystemExit: nothing there, or it does not fit at the lowest quality.
    """
    from efficientad_stream.model.data import list_images, read_image

    paths = list_images(images)
    for quality in QUALITIES:
        size = 0
        with tarfile.open(archive, "w") as tar:
            for index, path in enumerate(paths):
                data = _jpeg(read_image(path, 3), quality)
                entry = tarfile.TarInfo(f"{index:05}.jpg")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        size = archive.stat().st_size
        print(f"quality {quality}: {len(paths)} photographs, {size / MEBIBYTE:.1f} MiB", flush=True)
        if size <= mebibytes * MEBIBYTE:
            return quality
    archive.unlink()
    sys.exit(f"{images}: more than {mebibytes:g} MiB at quality {QUALITIES[-1]}; give fewer")


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    scale = SHORT_SIDE / min(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def unpack(archive: Path, work: Path) -> Path:
    """The folder of photographs in ``work``, from ``archive`` unless it is there."""
    folder = work / "photographs"
    if not folder.is_dir():
        fresh = work / "photographs.new"
        with tarfile.open(archive) as tar:
            tar.extractall(fresh, filter="data")
        fresh.rename(folder)
    return folder


def run(args: argparse.Namespace) -> int:
    """One sitting; 0 if the teacher is done, 130 if there is more to do."""
    work: Path = args.work
    work.mkdir(parents=True, exist_ok=True)
    state = work / f"state_{args.size.lower()}"
    join_pieces(work / "pieces", state)
    state.mkdir(exist_ok=True)
    photographs = unpack(args.archive, work)
    command = [
        sys.executable, "-m", "efficientad_stream", "distill", "--images", str(photographs),
        "--out", str(state / f"teacher_{args.size.lower()}.safetensors"), "--size", args.size,
        "--steps", str(args.steps), *args.rest,
    ]  # fmt: skip
    code = sit(command, args.minutes * 60)
    split_pieces(state, work / "pieces")
    print(f"distill ended with {code}; pieces of at most {PIECE // MEBIBYTE} MiB in {work}/pieces")
    return code


def sit(command: Sequence[str], seconds: float) -> int:
    """Run ``command``, interrupted after so long; its exit code, 130 if it was interrupted."""
    child = subprocess.Popen(command)  # noqa: S603 - ours
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        child.wait(GRACE_S)
        return INTERRUPTED


def split_pieces(state: Path, pieces: Path) -> None:
    """Copy the files of ``state`` into ``pieces``, in parts of at most ``PIECE``."""
    pieces.mkdir(exist_ok=True)
    for old in pieces.glob(f"{state.name}.*"):
        old.unlink()
    for file in sorted(path for path in state.iterdir() if path.is_file()):
        data = file.read_bytes()
        for part, begin in enumerate(range(0, max(1, len(data)), PIECE)):
            (pieces / f"{state.name}.{file.name}.{part:03}").write_bytes(
                data[begin : begin + PIECE]
            )


def join_pieces(pieces: Path, state: Path) -> None:
    """What ``split_pieces`` made, as files in ``state``, unless ``state`` is there."""
    if state.exists() or not pieces.is_dir():
        return
    state.mkdir(parents=True)
    for piece in sorted(pieces.glob(f"{state.name}.*")):
        name = piece.name[len(state.name) + 1 : -4]
        with (state / name).open("ab") as file:
            file.write(piece.read_bytes())


def main(argv: Sequence[str]) -> int:
    """Pack or run."""
    args = parse(argv)
    begun = time.monotonic()
    if args.action == "pack":
        pack(args.images, args.archive, args.mebibytes)
        code = 0
    else:
        code = run(args)
    print(f"{time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
