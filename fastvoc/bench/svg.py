"""Plots as inline SVG, without a library: points and lines on linear or logarithmic axes, and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#718096")
_WIDTH, _HEIGHT = 560, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 16, 48


@dataclass(frozen=True)
class Series:
    """Points (x, y) under a name, with a line through them or without, and what each is called."""

    name: str
    points: Sequence[tuple[float, float]]
    line: bool = True
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis shows, and whether by its logarithm."""

    title: str
    log: bool = False


class _Scale:
    """From values to pixels, and the values that are written at the axis."""

    def __init__(self, values: Sequence[float], log: bool, first: float, last: float) -> None:
        self._log, self._first, self._last = log, first, last
        self._low: float
        self._high: float
        good = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
        low, high = (min(good), max(good)) if log else (min(0.0, *good), max(good))
        if log:
            self._low, self._high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            self._high += self._low == self._high
        else:
            step = _step(high - low or 1.0)
            self._low, self._high = math.floor(low / step) * step, math.ceil(high / step) * step
            self._high += step if self._low == self._high else 0

    def __call__(self, value: float) -> float:
        at = math.log10(value) if self._log else value
        return self._first + (at - self._low) / (self._high - self._low) * (self._last - self._first)

    def ticks(self) -> list[float]:
        if self._log:
            return [10.0**power for power in range(int(self._low), int(self._high) + 1)]
        step = _step(self._high - self._low)
        return [self._low + i * step for i in range(round((self._high - self._low) / step) + 1)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, of which a span has some five."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * m for m in (1.0, 2.0, 5.0, 10.0) if span / (power * m) <= 6)


def plot(series: Sequence[Series], x: Axis, y: Axis) -> str:
    """An SVG of points. What is not finite, or not above 0 on a logarithmic axis, is left out."""
    points = [p for one in series for p in one.points]
    across = _Scale([p[0] for p in points], x.log, _LEFT, _WIDTH - _RIGHT)
    up = _Scale([p[1] for p in points], y.log, _HEIGHT - _BOTTOM, _TOP)
    parts = [*_frame(across, up, x, y)]
    for i, one in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        drawn = [
            (across(px), up(py), one.labels[k] if one.labels else f"{one.name}: {px:.4g}, {py:.4g}")
            for k, (px, py) in enumerate(one.points)
            if all(math.isfinite(v) and (v > 0 or not log) for v, log in ((px, x.log), (py, y.log)))
        ]
        if one.line and len(drawn) > 1:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in drawn)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if not one.line or one.labels or len(drawn) < 40:
            parts += [
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"><title>{escape(text)}</title></circle>'
                for px, py, text in drawn
            ]
        parts.append(_entry(i, one.name, colour))
    return _svg(parts)


def bars(values: Sequence[tuple[str, float]], y: Axis) -> str:
    """An SVG of bars from 0, each with its name and value."""
    up = _Scale([v for _, v in values], False, _HEIGHT - _BOTTOM, _TOP)
    across = _Scale([0.0, 1.0], False, _LEFT, _WIDTH - _RIGHT)
    parts = [*_frame(across, up, Axis(""), y, below=False)]
    width = (_WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    for i, (name, value) in enumerate(values):
        left, top, base = _LEFT + i * width + 0.2 * width, up(value), up(0.0)
        middle = left + 0.3 * width
        parts.append(
            f'<rect x="{left:.1f}" y="{min(top, base):.1f}" width="{0.6 * width:.1f}" height="{abs(base - top):.1f}" '
            f'fill="{COLOURS[0]}"/>'
        )
        parts.append(f'<text x="{middle:.1f}" y="{min(top, base) - 5:.1f}" text-anchor="middle">{value:.1f}</text>')
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(name)}</text>')
    return _svg(parts)


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis, *, below: bool = True) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in up.ticks():
        at = up(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in across.ticks() if below else []:
        at = across(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{value:.4g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 {_HEIGHT / 2})">'
        f"{escape(y.title)}</text>"
    )
    return parts


def _entry(index: int, name: str, colour: str) -> str:
    y = _TOP + 14 + 16 * index
    return (
        f'<rect x="{_LEFT + 10}" y="{y - 8}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{_LEFT + 26}" y="{y + 1}">{escape(name)}</text>'
    )


def _svg(parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">\n{inside}\n</svg>'
