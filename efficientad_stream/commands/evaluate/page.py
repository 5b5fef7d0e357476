"""One HTML page that needs nothing beside it: figures, scores, and what went wrong in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from efficientad_stream.commands.evaluate.document import Document, Table
from efficientad_stream.commands.evaluate.figures import Report
from efficientad_stream.commands.evaluate.gallery import Picture
from efficientad_stream.commands.evaluate.histogram import histogram
from efficientad_stream.commands.evaluate.scoring import Scored
from efficientad_stream.commands.evaluate.sections import one_product, percent

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5d6878; --rule: #dfe4ea; --paper: #f4f6f8;
  --good: #2f7fb8; --bad: #d9622b; --cut: #1c2430; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 30px 0 10px; }
h3 { font-size: 15px; margin: 0 0 10px; }
.sub, .note { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
section.product { border-top: 3px solid var(--rule); margin-top: 44px; padding-top: 24px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  margin: 20px 0; }
.tile, .card { background: #fff; border: 1px solid var(--rule); border-radius: 8px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.card { padding: 16px 18px; margin: 14px 0; overflow-x: auto; }
table { border-collapse: collapse; min-width: min(100%, 620px);
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: 13px; white-space: normal;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr:last-child td { border-bottom: 0; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); }
svg .good { fill: var(--good); opacity: .7; }
svg .bad { fill: var(--bad); opacity: .6; }
svg .axis { stroke: var(--rule); }
svg line.cut { stroke: var(--cut); stroke-dasharray: 4 3; }
svg text.cut { fill: var(--cut); }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px;
  margin: 0 5px 0 14px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr));
  gap: 14px; }
figure { margin: 0; background: #fff; border: 1px solid var(--rule); border-radius: 8px;
  overflow: hidden; }
figure img { display: block; width: 100%; height: 230px; object-fit: contain; background: #11161d; }
figcaption { padding: 8px 10px; font-size: 13px; overflow-wrap: anywhere; }
figcaption b { float: right; margin-left: 8px; font-variant-numeric: tabular-nums; }
figcaption span { color: var(--soft); }
"""


@dataclass(frozen=True)
class Product:
    """What the page shows of one recipe on one data set."""

    name: str
    report: Report
    scored: Sequence[Scored]
    escapes: Sequence[Picture]
    false_rejects: Sequence[Picture]


def as_html(products: Sequence[Product], overview: Document | None) -> str:
    """The whole page; ``overview`` comes first where there are several products."""
    title = "Evaluation" if overview else f"Evaluation of {products[0].report['recipe']['name']}"
    body = []
    if overview:
        body.append(f"<h1>{escape(overview.title)}</h1>{_blocks(overview)}")
    for product in products:
        css = ' class="product"' if overview else ""
        body.append(f"<section{css}>{_product(product)}</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _product(product: Product) -> str:
    report, recipe = product.report, product.report["recipe"]
    document = one_product(report)
    drawing = histogram(
        [one.score for one in product.scored if not one.item.defective],
        [one.score for one in product.scored if one.item.defective],
        report["threshold"],
    )
    return (
        f"<h1>{escape(product.name)}</h1>"
        f'<p class="sub">{escape(document.title)}</p>'
        f'<p class="sub">model {escape(recipe["model_sha256"][:12])}</p>'
        f"{_tiles(report)}"
        f'<div class="card"><h3>Scores <span class="note key"><i style="background:var(--good)">'
        '</i>good<i style="background:var(--bad)"></i>defective, share of each</span></h3>'
        f"{drawing}</div>"
        f"{_blocks(document)}"
        f"{_pictures('Worst escapes', report['escapes'], product.escapes)}"
        f"{_pictures('Worst false rejects', report['false_rejects'], product.false_rejects)}"
    )


def _tiles(report: Report) -> str:
    tiles = [
        (percent(report["image_auroc"]), "image AU-ROC"),
        (percent(report["au_pro"]), "AU-PRO to 0.3"),
        (percent(report["au_pro_0.05"]), "AU-PRO to 0.05"),
        (f"{report['escapes']} of {report['defective']}", "defective parts escape"),
        (f"{report['false_rejects']} of {report['good']}", "good parts are rejected"),
    ]
    if "mean_of_kinds" in report:
        means = report["mean_of_kinds"]
        tiles[1:3] = [
            (percent(means["image_auroc"]), "mean AU-ROC of the kinds"),
            (percent(means["au_spro"]), "mean AU-sPRO to 0.05"),
        ]
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for value, what in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _blocks(document: Document) -> str:
    parts = []
    for block in document.blocks:
        inner = _table(block) if isinstance(block, Table) else _lines(block)
        parts.append(f'<div class="card">{inner}</div>')
    return "".join(parts)


def _lines(text: str) -> str:
    return "".join(f"<div>{escape(line)}</div>" for line in text.splitlines())


def _table(table: Table) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in (table.title, *table.header[1:]))
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"


def _pictures(title: str, count: int, pictures: Sequence[Picture]) -> str:
    if not pictures:
        return f'<h2>{escape(title)}</h2><p class="note">None to show.</p>'
    figures = "".join(
        f'<figure><img src="{picture.data_uri}" alt="{escape(picture.scored.item.name)}">'
        f"<figcaption><b>{picture.scored.score:.4f}</b>{escape(picture.scored.item.name)}<br>"
        f"<span>{escape(picture.scored.item.kind)}</span></figcaption></figure>"
        for picture in pictures
    )
    return (
        f'<h2>{escape(title)} <span class="note">{len(pictures)} of {count}; heat: the anomaly '
        "map, hottest at its own maximum; white line: the mask</span></h2>"
        f'<div class="pictures">{figures}</div>'
    )
