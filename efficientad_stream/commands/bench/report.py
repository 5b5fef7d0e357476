"""The benchmark's rows as a table, as JSON, and the machine that they are of."""

from __future__ import annotations

import argparse
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from efficientad_stream import __version__
from efficientad_stream.commands.bench.measure import Row
from efficientad_stream.core.errors import ConfigError

HEAD = (
    "backend", "model", "input", "frame", "batch", "threads", "p50 ms", "p99 ms", "p99.9 ms",
    "frames/s", "x eager", "of roof", "score error", "map error",
)  # fmt: skip


def machine() -> str:
    """Processor and versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*: (.*)", text)
    name = found[1] if found else platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{name}{gpu}; Python {platform.python_version()}, PyTorch {torch.__version__}"


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for row in rows:
        ratio = "" if row.ratio_to_eager is None else f"{row.ratio_to_eager:.2f}"
        cells = [
            row.name, row.model, row.size, row.frame, str(row.batch), str(row.threads),
            f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}", f"{row.p999_ms:.1f}", f"{row.fps:.1f}",
            ratio, f"{row.roof_share:.2f}", f"{row.score_error:.1e}", f"{row.map_error:.1e}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write(args: argparse.Namespace, rows: Sequence[Row], threads: int, peak: float) -> None:
    """Print the table, and write the files that were asked for.

    Raises:
        ConfigError: a file cannot be written.
    """
    data = json.dumps([asdict(row) for row in rows], indent=1)
    if args.json is not None and str(args.json) == "-":
        print(data)
    else:
        about = [
            f"efficientad_stream {__version__} on {machine()}",
            f"{threads} threads; roof: {peak / 1e9:.0f} GFLOP/s in a matrix product, fp32",
        ]  # fmt: skip
        print("\n".join([*about, "", *table(rows)]))
        _write(args.json, "--json", data + "\n")
        _write(args.markdown, "--markdown", "\n".join([*about, "", *table(rows)]) + "\n")


def _write(path: Path | None, option: str, text: str) -> None:
    if path is None:
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written: {error.strerror}") from error
