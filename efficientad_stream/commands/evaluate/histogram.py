"""How the scores of good and defective parts lie, as an SVG drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BINS = 48
WIDTH, HEIGHT = 760, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 36
SHOWN = 0.98
"""Quantile of the scores at which the axis ends; what lies above is in the last bar."""


def histogram(good: Sequence[float], defective: Sequence[float], threshold: float) -> str:
    """Shares of each sort by score, and the threshold; empty if there is no finite score."""
    scores = np.array([*good, *defective], np.float64)
    scores = scores[np.isfinite(scores)]
    if not scores.size:
        return ""
    low = min(float(scores.min()), threshold)
    high = max(float(np.quantile(scores, SHOWN)), threshold + 0.1 * (threshold - low))
    high = high if high > low else low + 1e-6
    edges = np.linspace(low, high, BINS + 1)
    shares = [_shares(values, edges) for values in (good, defective)]
    top = max(float(share.max()) for share in shares) or 1.0
    bars = [_bars(share / top, css) for share, css in zip(shares, ("good", "bad"), strict=True)]
    axis = _axis(low, high, top, bool(scores.max() > high))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Distribution of scores">'
        f"{''.join(bars)}{axis}{_line(threshold, low, high)}</svg>"
    )


def _shares(values: Sequence[float], edges: np.ndarray) -> np.ndarray:
    finite = np.array([value for value in values if np.isfinite(value)], np.float64)
    counts, _ = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)
    return np.asarray(counts / max(1, finite.size), np.float64)


def _bars(heights: np.ndarray, css: str) -> str:
    wide = (WIDTH - LEFT - RIGHT) / BINS
    room = HEIGHT - TOP - BOTTOM
    return "".join(
        f'<rect class="{css}" x="{LEFT + i * wide + 0.5:.1f}" y="{TOP + room * (1 - h):.1f}" '
        f'width="{wide - 1:.1f}" height="{room * h:.1f}"/>'
        for i, h in enumerate(heights)
        if h > 0
    )


def _axis(low: float, high: float, top: float, more: bool) -> str:
    base = HEIGHT - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>']
    for value in _ticks(low, high):
        x = LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)
        parts.append(f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{value:.6g}</text>')
    if more:
        above = f"last bar: {high:.3g} and above"
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{TOP - 6}" text-anchor="end">{above}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">score</text>')
    parts.append(
        f'<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">{100 * top:.0f} %</text>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">0</text>'
    )
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, some four to ten of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * m for m in (5, 2, 1) if power * m <= (high - low) / 4)
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]


def _line(threshold: float, low: float, high: float) -> str:
    x = LEFT + (WIDTH - LEFT - RIGHT) * (threshold - low) / (high - low)
    anchor, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
    return (
        f'<line class="cut" x1="{x:.1f}" y1="{TOP - 14}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="cut" x="{x + shift:.1f}" y="{TOP - 6}" text-anchor="{anchor}">'
        f"threshold {threshold:.4g}</text>"
    )
