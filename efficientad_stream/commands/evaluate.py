"""``efficientad-stream evaluate``: measure a recipe on a labelled data set, by the live path."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efficientad_stream.core.errors import ConfigError, EfficientADError
from efficientad_stream.core.evaluation import (
    BestF1,
    Outcome,
    PixelCurves,
    auroc,
    best_f1,
    outcome,
)
from efficientad_stream.core.types import (
    Batch,
    Frame,
    FrameMeta,
    Inspection,
    PixelArray,
    Policy,
    Reason,
    Scores,
)

if TYPE_CHECKING:
    from efficientad_stream.model.artifact import LoadedRecipe
    from efficientad_stream.model.dataset import Labelled

SAY_EVERY_S = 10.0
MAX_THREADS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="folder in the layout of MVTec AD")
    add("--recipe", type=Path, required=True, help="folder of the recipe")
    add("--threshold", type=float, help="judge by this one instead of the recipe's")
    add("--json", type=Path, help="write everything, a score for each image included")
    add("--limit", type=int, default=0, help="score only so many images, evenly spread")
    add("--threads", type=int, default=0, help="of PyTorch; 0: one a core")


@dataclass(frozen=True)
class Scored:
    """One test image and what was said of it."""

    item: Labelled
    inspection: Inspection

    @property
    def score(self) -> float:
        """NaN if it could not be scored."""
        scores = self.inspection.scores
        return scores.score if scores is not None else math.nan


def run(args: argparse.Namespace) -> int:
    """Score every test image and print the figures."""
    if args.limit < 0:
        raise ConfigError(f"--limit {args.limit}: must not be negative")
    if not 0 <= args.threads <= MAX_THREADS:
        raise ConfigError(f"--threads {args.threads}: must lie between 0 and {MAX_THREADS}")
    if args.threshold is not None and not math.isfinite(args.threshold):
        raise ConfigError(f"--threshold {args.threshold}: is not a finite number")
    from efficientad_stream.model.artifact import load_recipe
    from efficientad_stream.model.data import spread
    from efficientad_stream.model.dataset import read_dataset
    from efficientad_stream.model.memory import keep_freed_memory

    keep_freed_memory()
    loaded = load_recipe(args.recipe)
    items = read_dataset(args.dataset)
    items = [items[index] for index in spread(len(items), args.limit)]
    threshold = loaded.recipe.threshold.value if args.threshold is None else args.threshold
    curves = PixelCurves()
    begun = time.monotonic()
    scored = list(score_all(loaded, items, Policy(threshold), args.threads, curves))
    seconds = time.monotonic() - begun
    report = {
        "dataset": str(args.dataset),
        "recipe": asdict(loaded.recipe.id),
        **figures(scored, threshold, curves),
        "seconds": round(seconds, 1),
    }
    print(as_text(report))
    if args.json is not None:
        _write_json(args.json, {**report, "images": [_as_dict(one) for one in scored]})
    return 0


def score_all(
    loaded: LoadedRecipe,
    items: Sequence[Labelled],
    policy: Policy,
    threads: int,
    curves: PixelCurves,
) -> Iterator[Scored]:
    """Feed ``items`` through ``inspect`` and the processor backend, as the daemon does.

    Maps of good images, and of defective ones whose defect is marked, are added to ``curves`` at
    the size of their image.
    """
    from efficientad_stream.backends.torch_cpu import TorchCpuBackend
    from efficientad_stream.runtime.active import Active, ActiveRef
    from efficientad_stream.runtime.pipeline import inspect

    backend = TorchCpuBackend(loaded, threads, maps=True)
    try:
        active = ActiveRef(Active(loaded.recipe.id, policy, backend))
        frames = _frames(items, loaded.recipe.geometry.channels)
        said = time.monotonic()
        for inspection in inspect(frames, active, 1, time.monotonic_ns, _say_why):
            item = items[inspection.meta.frame_id - 1]
            if inspection.reason is Reason.NON_FINITE:
                _say_why(inspection.meta, "its score is not a number")
            _add_map(curves, item, inspection.scores, inspection.pixels)
            yield Scored(item, inspection)
            if time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                print(f"{inspection.meta.frame_id}/{len(items)}", file=sys.stderr)
    finally:
        backend.close()


def _say_why(meta: FrameMeta, error: EfficientADError | str) -> None:
    """One line for an image that could not be scored; the report only counts it."""
    print(f"{meta.part_id}: {error}", file=sys.stderr)


def _frames(items: Sequence[Labelled], channels: int) -> Iterator[Batch]:
    """Batches of one frame; each is read when the one before has been answered."""
    from efficientad_stream.model.data import read_image

    for index, item in enumerate(items):
        pixels = read_image(item.path, channels)
        meta = FrameMeta(
            frame_id=index + 1,
            captured_ns=time.monotonic_ns(),
            captured_at_us=time.time_ns() // 1000,
            height=pixels.shape[0],
            width=pixels.shape[1],
            channels=channels,
            part_id=item.name,
            truth=item.kind,
        )
        yield (Frame(meta, pixels),)


def _add_map(
    curves: PixelCurves, item: Labelled, scores: Scores | None, pixels: PixelArray | None
) -> None:
    if scores is None or scores.anomaly_map is None or pixels is None:
        return
    if (item.defective and item.mask is None) or not math.isfinite(scores.score):
        return
    import torch

    from efficientad_stream.model.dataset import read_labels
    from efficientad_stream.model.networks import full_map

    height, width = pixels.shape[:2]
    full = full_map(torch.from_numpy(scores.anomaly_map)[None], height, width)[0]
    curves.add(full.numpy(), read_labels(item, height, width))


def figures(scored: Sequence[Scored], threshold: float, curves: PixelCurves) -> dict[str, Any]:
    """All figures of a report, as plain values; an image without a finite score rejects."""
    valid = [one for one in scored if math.isfinite(one.score)]
    good = [one for one in valid if not one.item.defective]
    areas = curves.areas()
    per_defect = {}
    for kind in sorted({one.item.kind for one in scored if one.item.defective}):
        some = [one for one in valid if one.item.kind == kind]
        judged = _outcome([one for one in scored if one.item.kind == kind], threshold)
        per_defect[kind] = {
            "images": judged.defective,
            "image_auroc": _auroc(good + some),
            "escapes": judged.escapes,
        }
    best = _best_f1(valid)
    return {
        "threshold": threshold,
        "image_auroc": _auroc(valid),
        "pixel_auroc": areas[0] if areas else None,
        "au_pro": areas[1] if areas else None,
        "defects_marked": curves.components,
        "best_f1": asdict(best) if best else None,
        **asdict(_outcome(scored, threshold)),
        "invalid": len(scored) - len(valid),
        "per_defect": per_defect,
    }


def _outcome(scored: Sequence[Scored], threshold: float) -> Outcome:
    return outcome([o.score for o in scored], [o.item.defective for o in scored], threshold)


def _two_kinds(scored: Sequence[Scored]) -> bool:
    return len({one.item.defective for one in scored}) == 2


def _auroc(scored: Sequence[Scored]) -> float | None:
    if not _two_kinds(scored):
        return None
    return auroc([one.score for one in scored], [one.item.defective for one in scored])


def _best_f1(scored: Sequence[Scored]) -> BestF1 | None:
    if not _two_kinds(scored):
        return None
    return best_f1([one.score for one in scored], [one.item.defective for one in scored])


def as_text(report: dict[str, Any]) -> str:
    """The report on one screen."""
    return "\n".join([_title(report), "", *_table(report), "", *_verdicts(report)])


def _title(report: dict[str, Any]) -> str:
    recipe = report["recipe"]
    images = report["good"] + report["defective"]
    each = 1000 * report["seconds"] / max(1, images)
    return (
        f"recipe {recipe['name']} revision {recipe['revision']} on {report['dataset']}: "
        f"{images} images in {report['seconds']} s ({each:.0f} ms each)"
    )


def _table(report: dict[str, Any]) -> list[str]:
    def row(kind: str, images: object, area: object, escapes: object) -> str:
        return f"{kind:<24}{images:>8}{area:>9}{escapes:>9}"

    parts = [
        row(kind, part["images"], _percent(part["image_auroc"]), part["escapes"])
        for kind, part in report["per_defect"].items()
    ]
    overall = _percent(report["image_auroc"])
    total = row("all defects", report["defective"], overall, report["escapes"])
    return [row("", "images", "AU-ROC", "escapes"), *parts, total]


def _verdicts(report: dict[str, Any]) -> list[str]:
    pixel, pro = _percent(report["pixel_auroc"]), _percent(report["au_pro"])
    lines = [f"pixel AU-ROC {pixel}   AU-PRO (to 0.3) {pro}   {report['defects_marked']} defects"]
    lines.append(
        f"threshold {report['threshold']:.4f}: {report['escapes']} of {report['defective']} "
        f"defective parts escape, {report['false_rejects']} of {report['good']} good parts are "
        "rejected"
    )
    if report["best_f1"]:
        best = report["best_f1"]
        lines.append(
            f"best F1 of any threshold {_percent(best['f1'])} at {best['threshold']:.4f} "
            "(chosen on the test images, so nothing to run with)"
        )
    if report["invalid"]:
        lines.append(f"{report['invalid']} images could not be scored: rejected, not in the areas")
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _as_dict(one: Scored) -> dict[str, Any]:
    scores = one.inspection.scores
    finite = scores is not None and math.isfinite(scores.score)
    return {
        "path": one.item.name,
        "truth": one.item.kind,
        "verdict": one.inspection.verdict.name,
        "reason": one.inspection.reason.value if one.inspection.reason else None,
        "score": scores.score if scores and finite else None,
        "local_score": scores.local_score if scores and finite else None,
        "global_score": scores.global_score if scores and finite else None,
    }


def _write_json(path: Path, report: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written: {error.strerror}") from error
