"""``efficientad-stream teacher``: import a published teacher, or say what a teacher file is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from efficientad_stream.core.errors import ArtifactError, ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands ``import`` and ``show``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="import|show")
    take = actions.add_parser("import", help="convert a published teacher file to safetensors")
    take.add_argument("file", type=Path, help="PyTorch state dict of a public re-implementation")
    take.add_argument("--out", type=Path, required=True, help="file to write, .safetensors")
    take.add_argument("--size", choices=("S", "M"), help="refuse a teacher of the other size")
    show = actions.add_parser("show", help="check a teacher file and print what it says of itself")
    show.add_argument("file", type=Path, nargs="?", help="default: those of the package")


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    return _import(args) if args.action == "import" else _show(args.file)


def _import(args: argparse.Namespace) -> int:
    if args.out.suffix != ".safetensors":
        raise ConfigError(f"--out {args.out}: give a name that ends with .safetensors")
    if args.out.exists():
        raise ArtifactError(f"{args.out}: exists already; give another name")
    from efficientad_stream.model.artifact import save_teacher
    from efficientad_stream.model.teacher_import import read_published

    pdn, notes = read_published(args.file, args.size)
    save_teacher(args.out, pdn, notes)
    print(f"{args.out}: teacher of size {pdn.size}, {notes['layout']} layout, half precision")
    return 0


def _show(file: Path | None) -> int:
    from efficientad_stream.model.artifact import LoadedTeacher, default_teacher, load_teacher
    from efficientad_stream.model.networks import Size

    def show(name: str, teacher: LoadedTeacher) -> None:
        print(f"{name}:")
        count = sum(p.numel() for p in teacher.pdn.parameters())
        facts = {"sha256": teacher.sha256, "parameters": f"{count:,}", **teacher.info}
        for key, value in facts.items():
            print(f"  {key:<16} {value}")

    if file is not None:
        show(str(file), load_teacher(file))
        return 0
    for size in get_args(Size):
        show(f"teacher of the package, size {size}", default_teacher(size))
    return 0
