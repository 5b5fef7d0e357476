"""All figures of a report as plain values, the same in every format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from efficientad_stream.commands.evaluate.scoring import Scored, Scoring
from efficientad_stream.core.evaluation import Outcome, at_escapes, auroc, best_f1, outcome
from efficientad_stream.core.localisation import PixelAreas
from efficientad_stream.core.types import GOOD

CLEAN = "clean"
AREAS = ("image_auroc", "pixel_auroc", "au_pro", "au_pro_0.05", "au_spro", "au_spro_0.3")
"""Areas of a report: AU-PRO integrates to 0.3 unless it says 0.05, AU-sPRO the other way round."""

Report = dict[str, Any]


def figures(scoring: Scoring, threshold: float, *, saturating: bool) -> Report:
    """Everything that is measured; an image without a finite score rejects.

    Args:
        scoring: what was scored.
        threshold: what is judged by.
        saturating: MVTec LOCO: AU-sPRO too, and the mean over its two kinds of anomalies.
    """
    scored = scoring.clean
    per_defect = {
        kind: _of_kind(scoring, kind, threshold, saturating)
        for kind in sorted({one.item.kind for one in scored if one.item.defective})
    }
    report: Report = {
        "threshold": threshold,
        "image_auroc": _auroc(_valid(scored)),
        **_pixels(scoring.curves.areas(), saturating),
        "defects_marked": scoring.curves.regions,
        "best_f1": _best_f1(_valid(scored)),
        "at_escapes": _at_escapes(scored),
        **asdict(_outcome(scored, threshold)),
        "invalid": len(scored) - len(_valid(scored)),
        "per_defect": per_defect,
    }
    if saturating and len(per_defect) > 1:  # one of two kinds alone has no mean
        report["mean_of_kinds"] = mean(list(per_defect.values()), AREAS)
    if scoring.corrupted:
        report["corruptions"] = _corruptions(scoring, threshold)
    return report


def mean(reports: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Report:
    """The mean of each figure; None unless every report has it."""
    found: Report = {}
    for key in keys:
        values = [report.get(key) for report in reports]
        whole = [value for value in values if value is not None]
        found[key] = sum(whole) / len(whole) if whole and len(whole) == len(values) else None
    return found


def _of_kind(scoring: Scoring, kind: str, threshold: float, saturating: bool) -> Report:
    """One kind of defect against all good images; pixels of good ones and of this kind."""
    some = [one for one in scoring.clean if one.item.kind in (GOOD, kind)]
    judged = _outcome(some, threshold)
    return {
        "images": judged.defective,
        "image_auroc": _auroc(_valid(some)),
        "escapes": judged.escapes,
        **_pixels(scoring.curves.areas((GOOD, kind)), saturating),
    }


def _pixels(areas: PixelAreas | None, saturating: bool) -> Report:
    return {
        "pixel_auroc": areas.auroc if areas else None,
        "au_pro": areas.pro_30 if areas else None,
        "au_pro_0.05": areas.pro_5 if areas else None,
        "au_spro": areas.spro_5 if areas and saturating else None,
        "au_spro_0.3": areas.spro_30 if areas and saturating else None,
    }


def _corruptions(scoring: Scoring, threshold: float) -> Report:
    """The same images, changed: area, points lost against the clean ones, and verdicts."""
    clean = _auroc(_valid(scoring.clean))
    table = {}
    for name, scored in ((CLEAN, scoring.clean), *scoring.corrupted.items()):
        area = _auroc(_valid(scored))
        lost = None if area is None or clean is None else 100 * (clean - area)
        table[name] = {
            "image_auroc": area,
            "points_lost": lost,
            **asdict(_outcome(scored, threshold)),
        }
    return table


def _valid(scored: Sequence[Scored]) -> list[Scored]:
    return [one for one in scored if math.isfinite(one.score)]


def _truth(scored: Sequence[Scored]) -> list[bool]:
    return [one.item.defective for one in scored]


def _scores(scored: Sequence[Scored]) -> list[float]:
    return [one.score for one in scored]


def _outcome(scored: Sequence[Scored], threshold: float) -> Outcome:
    return outcome(_scores(scored), _truth(scored), threshold)


def _two_kinds(scored: Sequence[Scored]) -> bool:
    return len(set(_truth(scored))) == 2


def _auroc(scored: Sequence[Scored]) -> float | None:
    return auroc(_scores(scored), _truth(scored)) if _two_kinds(scored) else None


def _best_f1(scored: Sequence[Scored]) -> Report | None:
    return asdict(best_f1(_scores(scored), _truth(scored))) if _two_kinds(scored) else None


def _at_escapes(scored: Sequence[Scored]) -> list[Report]:
    if not _two_kinds(scored):
        return []
    points = [asdict(point) for point in at_escapes(_scores(scored), _truth(scored))]
    for point in points:
        if math.isinf(point["threshold"]):  # JSON has no infinity
            point["threshold"] = None
    return points


def image_of(one: Scored) -> Report:
    """What the JSON report says of one image."""
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
