"""A report as tables and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from efficientad_stream.commands.evaluate.document import Document, Table
from efficientad_stream.commands.evaluate.figures import Report

AREA_COLUMNS = {
    "image_auroc": "AU-ROC",
    "pixel_auroc": "pixel AU-ROC",
    "au_pro": "AU-PRO 0.3",
    "au_pro_0.05": "AU-PRO 0.05",
    "au_spro": "AU-sPRO 0.05",
    "au_spro_0.3": "AU-sPRO 0.3",
}


def one_product(report: Report) -> Document:
    """Everything that is known of one recipe on one data set."""
    recipe = report["recipe"]
    images = report["good"] + report["defective"]
    times = len(report.get("corruptions", [""]))
    each = 1000 * report["seconds"] / max(1, images * times)
    again = f", each {times} times," if times > 1 else ""
    title = (
        f"recipe {recipe['name']} revision {recipe['revision']} on {report['dataset']} "
        f"({report['layout']}): {images} images{again} in {report['seconds']} s "
        f"({each:.0f} ms a frame)"
    )
    blocks = [_defects(report), "\n".join(_sentences(report)), *_at_escapes(report)]
    if "corruptions" in report:
        blocks.append(corruptions(report["corruptions"]))
    return Document(title, blocks)


def many_products(report: Report) -> Document:
    """A row a category, and the mean."""
    categories: Mapping[str, Report] = report["categories"]
    areas = _areas_in([*categories.values()])
    counts = ("defective", "escapes", "good", "false_rejects")
    rows = [
        (name, *_area_cells(one, areas), *(str(one[count]) for count in counts))
        for name, one in categories.items()
    ]
    rows.append(("mean", *_area_cells(report["mean"], areas), *("" for _ in counts)))
    header = ("", *map(AREA_COLUMNS.__getitem__, areas), "defective", "escape", "good", "rejected")
    blocks: list[Table | str] = [Table("category", header, tuple(rows))]
    if any("mean_of_kinds" in one for one in categories.values()):
        blocks.append(_by_kind(report))
    if "corruptions" in report["mean"]:
        blocks.append(corruptions(report["mean"]["corruptions"]))
    return Document(f"{len(rows) - 1} categories of {report['dataset']}", blocks)


def _by_kind(report: Report) -> Table:
    """MVTec LOCO as its papers have it: logical, structural, and the mean of the two."""
    keys = ("image_auroc", "au_spro")
    columns = [f"{kind} {AREA_COLUMNS[k]}" for k in keys for kind in ("logical", "structural")]
    columns += [f"mean {AREA_COLUMNS[k]}" for k in keys]
    rows = []
    for name, one in report["categories"].items():
        if "mean_of_kinds" not in one:
            continue
        kinds = one["per_defect"]
        cells = [
            percent(kinds.get(f"{kind}_anomalies", {}).get(key))
            for key in keys
            for kind in ("logical", "structural")
        ]
        means = [percent(one["mean_of_kinds"][key]) for key in keys]
        rows.append((name, *cells, *means))
    of_means = report["mean"].get("mean_of_kinds")
    if of_means:
        rows.append(("mean", "", "", "", "", *(percent(of_means[key]) for key in keys)))
    return Table("kinds of anomalies", ("", *columns), tuple(rows))


def _areas_in(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """The areas that any of them has; that over images always."""
    return [
        key
        for key in AREA_COLUMNS
        if key == "image_auroc" or any(one.get(key) is not None for one in reports)
    ]


def _area_cells(report: Mapping[str, Any], areas: Sequence[str]) -> list[str]:
    return [percent(report.get(key)) for key in areas]


def _defects(report: Report) -> Table:
    """A row a kind of defect."""
    areas = _areas_in([report])[1:]
    header = ("", "images", "AU-ROC", "escapes", *map(AREA_COLUMNS.__getitem__, areas))

    def row(name: str, one: Mapping[str, Any], images: object, escapes: object) -> tuple[str, ...]:
        area = percent(one.get("image_auroc"))
        return (name, str(images), area, str(escapes), *_area_cells(one, areas))

    rows = [row(kind, p, p["images"], p["escapes"]) for kind, p in report["per_defect"].items()]
    if "mean_of_kinds" in report:
        rows.append(row("mean of the kinds", report["mean_of_kinds"], "", ""))
    rows.append(row("all defects", report, report["defective"], report["escapes"]))
    return Table("defect", header, tuple(rows))


def _sentences(report: Report) -> list[str]:
    pixel, pro, narrow = (percent(report[k]) for k in ("pixel_auroc", "au_pro", "au_pro_0.05"))
    areas = f"pixel AU-ROC {pixel}, AU-PRO (to 0.3) {pro}, AU-PRO (to 0.05) {narrow}"
    verdicts = (
        f"threshold {report['threshold']:.4f}: {report['escapes']} of {report['defective']} "
        f"defective parts escape, {report['false_rejects']} of {report['good']} good parts are "
        "rejected"
    )
    lines = [f"{areas}, {report['defects_marked']} defects marked", verdicts]
    if report["best_f1"]:
        best = report["best_f1"]
        lines.append(
            f"best F1 of any threshold {percent(best['f1'])} at {best['threshold']:.4f} "
            "(chosen on the test images, so nothing to run with)"
        )
    if report["invalid"]:
        lines.append(f"{report['invalid']} images could not be scored: rejected, not in the areas")
    return lines


def _at_escapes(report: Report) -> list[Table | str]:
    if not report["at_escapes"]:
        return []
    rows = tuple(
        (
            f"at most {100 * point['allowed']:g} %",
            str(point["escapes"]),
            str(point["false_rejects"]),
            percent(point["false_reject_rate"]),
            "-" if point["threshold"] is None else f"{point['threshold']:.4f}",
        )
        for point in report["at_escapes"]
    )
    header = ("", "escapes", "false rejects", "of the good", "threshold")
    return [Table("if escapes were", header, rows)]


def corruptions(table: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a corruption; counts where there are any."""
    counts = ("escapes", "false_rejects")
    shown = [count for count in counts if all(count in one for one in table.values())]
    header = ("", "AU-ROC", "points lost", *(count.replace("_", " ") for count in shown))
    rows = tuple(
        (
            name,
            percent(one["image_auroc"]),
            _or_dash(one["points_lost"], lambda value: f"{value + 0.0:.1f}"),
            *(str(one[count]) for count in shown),
        )
        for name, one in table.items()
    )
    return Table("frames with", header, rows)


def percent(value: float | None) -> str:
    """A share as it is shown everywhere."""
    return _or_dash(value, lambda share: f"{100 * share:.1f} %")


def _or_dash(value: float | None, shown: Callable[[float], str]) -> str:
    return "-" if value is None else shown(value)
