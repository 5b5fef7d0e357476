"""The table of the accuracy benchmark, from what the commands have written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from benchmark_accuracy import as_row, main, table  # noqa: E402

RECIPE = "name: x\ntraining:\n  autoencoder_steps: 20\n  steps: 10\n  seconds: 90\n"


def report(image: float, crack: float) -> dict[str, object]:
    scores = {"good": (0.1, 0.3), "crack": (0.2, 0.1)}
    return {
        "image_auroc": image,
        "au_pro": 0.25,
        "per_defect": {"crack": {"image_auroc": crack}},
        "images": [
            {"truth": kind, "score": local, "local_score": local, "global_score": globl}
            for kind, (local, globl) in scores.items()
        ]
        + [{"truth": "crack", "score": None, "local_score": None, "global_score": None}],
    }


def test_a_row_holds_what_was_measured_and_the_mean_is_over_seeds() -> None:
    rows = [as_row(report(a, a - 0.1), RECIPE, "base", i) for i, a in enumerate((0.8, 0.9))]
    assert rows[0].local == 100
    assert rows[0].globl == 0
    lines = table(rows)
    assert lines[0].startswith("| variant | seed | AU-ROC | local | global | AU-PRO | crack |")
    assert lines[2] == "| base | 0 | 80.0 | 100.0 | 0.0 | 25.0 | 70.0 | 20 + 10 | 1.5 |"
    assert lines[4] == "| base | mean | 85.0 | 100.0 | 0.0 | 25.0 | 75.0 | 20 + 10 | 1.5 |"


def test_an_unknown_variant_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--dataset", "d", "--natural", "n", "--work", "w", "--variants", "nonsense"])
    assert "nonsense" in capsys.readouterr().err
