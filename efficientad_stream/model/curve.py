"""The losses of a training, step by step, in a CSV file."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from efficientad_stream.core.errors import ArtifactError, FatalError

CURVE_FILE = "loss.csv"
CURVE_COLUMNS = ("step", "hard", "penalty", "autoencoder", "student_autoencoder")


class Curve:
    """The losses of every step, in a CSV file that a resumed run continues."""

    def __init__(self, path: Path, steps: int) -> None:
        """Continue ``path`` after ``steps`` steps; what is beyond them is cut off."""
        self._waiting: list[Tensor] = []
        self._newest = (0.0, 0.0, 0.0, 0.0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text().splitlines()[1 : steps + 1] if steps and path.exists() else []
            self._file = path.open("w", newline="")
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{path}: is damaged; delete it to begin the curve anew") from error
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from error
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(CURVE_COLUMNS)
        self._path = path
        self._file.writelines(line + "\n" for line in lines)
        self._flush()

    def __enter__(self) -> Curve:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what could not be written has been said by ``flush``
            self._file.close()

    def _flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise ArtifactError(f"{self._path}: cannot be written: {error.strerror}") from error

    def add(self, row: Tensor) -> None:
        """Take note of a step's losses without waiting for the device."""
        self._waiting.append(row)

    def flush(self, steps: int) -> tuple[float, float, float, float]:
        """Write what waits, the last of it being step ``steps``; returns the newest losses.

        Raises:
            FatalError: a loss is not a number.
            ArtifactError: the disk is full.
        """
        if self._waiting:
            rows = torch.stack(self._waiting).cpu()
            first = steps - len(rows) + 1
            self._waiting.clear()
            for offset, row in enumerate(rows.tolist()):
                self._writer.writerow([first + offset, *(f"{value:.6g}" for value in row)])
            self._flush()
            if not torch.isfinite(rows).all():
                raise FatalError(
                    f"the loss is no longer a number before step {steps}; begin anew with "
                    "--precision fp32 or another --seed"
                )
            self._newest = tuple(rows[-1].tolist())
        return self._newest
