"""The picture of a demo: a handful of parts, each with its frame, heatmap and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from efficientad_stream.core.errors import ArtifactError
from efficientad_stream.core.messages import Decision
from efficientad_stream.core.tally import is_escape, is_false_reject
from efficientad_stream.core.types import GOOD, PixelArray, Verdict

PANEL = (300, 400)
"""Height and width of a frame in the picture."""
BAR = 46
GAP = 14
SEAM = 3
"""Between a frame and its heatmap."""
COLUMNS = 2
FONT = cv2.FONT_HERSHEY_SIMPLEX

Colour = tuple[int, int, int]
PAGE: Colour = (255, 255, 255)
BAR_COLOUR: Colour = (40, 36, 34)
TEXT: Colour = (236, 236, 236)
DIM: Colour = (165, 160, 158)
WRONG: Colour = (70, 170, 255)
VERDICTS: dict[Verdict, Colour] = {
    Verdict.PASS: (74, 140, 46),
    Verdict.FAIL: (48, 48, 196),
    Verdict.INVALID: (30, 130, 200),
}


@dataclass(frozen=True)
class Shown:
    """One part of the picture: frame and heatmap are BGR, any size."""

    decision: Decision
    frame: PixelArray
    heatmap: PixelArray


def read_heatmap(path: Path) -> PixelArray:
    """A heatmap as ``watch`` saved it.

    Raises:
        ArtifactError: it cannot be read.
    """
    heatmap = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if heatmap is None:
        raise ArtifactError(f"{path}: is not a heatmap that can be read")
    return np.asarray(heatmap, np.uint8)


def draw(parts: Sequence[Shown]) -> PixelArray:
    """All ``parts`` on one page, BGR."""
    cards = [_card(part) for part in parts]
    height, width = cards[0].shape[:2]
    rows = -(-len(cards) // COLUMNS)
    page = np.empty((rows * (height + GAP) - GAP, COLUMNS * (width + GAP) - GAP, 3), np.uint8)
    page[:] = PAGE
    for place, card in enumerate(cards):
        y, x = (place // COLUMNS) * (height + GAP), (place % COLUMNS) * (width + GAP)
        page[y : y + height, x : x + width] = card
    return page


def save(path: Path, page: PixelArray) -> None:
    """Write ``page``.

    Raises:
        ArtifactError: it cannot be written.
    """
    if not cv2.imwrite(str(path), page):
        raise ArtifactError(f"{path}: cannot be written")


def _card(part: Shown) -> PixelArray:
    """Frame and heatmap side by side, the verdict below."""
    height, width = PANEL
    card = np.empty((height + BAR, 2 * width + SEAM, 3), np.uint8)
    card[:] = PAGE
    card[:height, :width] = _fit(part.frame)
    card[:height, -width:] = _fit(part.heatmap)
    card[height:] = BAR_COLOUR
    _caption(card[height:], part.decision)
    return card


def _fit(picture: PixelArray) -> PixelArray:
    """``picture`` at the size of a panel."""
    height, width = PANEL
    shrinks = picture.shape[0] > height
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def _caption(bar: PixelArray, decision: Decision) -> None:
    """Verdict, score and truth, in place."""
    pill, name = 118, decision.header.verdict.name
    bar[:, :pill] = VERDICTS[decision.header.verdict]
    _write(bar, name, (pill - _width(name, 0.75)) // 2, 0.75, TEXT)
    _write(bar, why(decision), pill + 16, 0.6, TEXT)
    note, colour = truth(decision)
    _write(bar, note, bar.shape[1] - _width(note, 0.6) - 16, 0.6, colour)


def why(decision: Decision) -> str:
    """What the verdict rests on."""
    score, threshold = decision.body.score, decision.body.threshold
    if score is None or threshold is None:
        return decision.body.reason or "no score"
    sign = "<" if score < threshold else ">="
    return f"score {score:.3f} {sign} {threshold:.3f}"


def truth(decision: Decision) -> tuple[str, Colour]:
    """What the part is, and whether the verdict is wrong."""
    name = (decision.body.truth or "unknown").replace("_", " ")
    if is_escape(decision):
        return f"escape: {name}", WRONG
    if is_false_reject(decision):
        return f"false reject: {name}", WRONG
    return name, DIM if name == GOOD else TEXT


def _width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, FONT, size, 1)[0][0])


def _write(bar: PixelArray, text: str, x: int, size: float, colour: Colour) -> None:
    """``text`` in the middle of the bar's height, from ``x`` on."""
    high = cv2.getTextSize("0", FONT, size, 1)[0][1]
    cv2.putText(bar, text, (x, (bar.shape[0] + high) // 2), FONT, size, colour, 1, cv2.LINE_AA)
