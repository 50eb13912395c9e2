"""The learning curves of a training, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 420, 260, 60, 50, 90
_COLOURS = ("#1f6fb2", "#b5541c", "#3c7a3c")


class Point(NamedTuple):
    """What was known at a step: smoothed losses, and shares of the first held-out set."""

    step: int
    choice: float
    text: float
    right: float
    wrong: float
    refused: float


def draw(points: list[Point]) -> str:
    """Two panels, losses and shares over the steps, as an SVG."""
    losses: list[tuple[str, Callable[[Point], float]]] = [
        ("choice of the answer", lambda point: point.choice),
        ("text of the answer", lambda point: point.text),
    ]
    shares: list[tuple[str, Callable[[Point], float]]] = [
        ("right", lambda point: point.right),
        ("wrong", lambda point: point.wrong),
        ("refused off topic", lambda point: point.refused),
    ]
    highest = max(1.0, *(max(point.choice, point.text) for point in points[1:] or points))
    width = 2 * _WIDTH + _GAP + _LEFT + 30
    height = _HEIGHT + _TOP + 50
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *_panel("loss on fresh questions", points, losses, highest, _LEFT),
            *_panel("first held-out set", points, shares, 1.0, _LEFT + _WIDTH + _GAP),
            "</svg>",
            "",
        ]
    )


def _panel(
    title: str, points: list[Point], lines: list[tuple[str, Callable[[Point], float]]], highest: float, left: int
) -> list[str]:
    last = max(point.step for point in points)
    bottom = _TOP + _HEIGHT
    out = [f'<text x="{left}" y="{_TOP - 28}" font-weight="bold">{title}</text>']
    for part in range(5):
        y, value = bottom - _HEIGHT * part / 4, highest * part / 4
        out.append(f'<line x1="{left}" y1="{y:.0f}" x2="{left + _WIDTH}" y2="{y:.0f}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end" fill="#555555">{value:.2f}</text>')
        at = left + _WIDTH * part / 4
        out.append(
            f'<text x="{at:.0f}" y="{bottom + 18}" text-anchor="middle" fill="#555555">{last * part // 4:,}</text>'
        )
    out.append(f'<text x="{left + _WIDTH}" y="{bottom + 38}" text-anchor="end" fill="#555555">steps</text>')
    across = left
    for (name, value), colour in zip(lines, _COLOURS, strict=False):
        path = " ".join(
            f"{left + _WIDTH * point.step / last:.1f},{bottom - _HEIGHT * min(1.0, value(point) / highest):.1f}"
            for point in points
        )
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{across}" y="{_TOP - 10}" fill="{colour}">{name}</text>')
        across += 9 * len(name) + 12
    return out
