"""The curve of a job as a figure: losses on the left axis, the score of its task on the right one.

Drawn here, because Gradio's own plot has one axis. Lines are an SVG that is stretched to the room there is;
words stand beside it as HTML, so that they keep their size on a phone.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from math import ceil, floor, isfinite, log10

from ui.board import Curve, Point

_SIDE = 1000
"""Units of the drawing in each direction."""
_MAX_HINTS = 120
"""Strips that tell their figures under the mouse; more would be narrower than a mouse can point at."""
_MAX_DOTS = 60
_SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SCORE = "task score"
_LEGEND = {"training": "training loss", "validation": "validation loss", _SCORE: f"{_SCORE} (right)"}


def plot_html(curve: Curve) -> str:
    """The figure, or what to expect in its place. What is no finite number is left out."""
    lines = {
        "training": _finite(curve.training.points),
        "validation": _finite(curve.validation.points),
        _SCORE: _finite(curve.task_score.points),
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return '<div class="curve"><p class="empty">The loss appears here from the first step on.</p></div>'
    marks = curve.marks()
    last = max(1, *marks.values(), *(points[-1].step for points in lines.values()))
    ticks = _ticks(
        max((point.value for name in lines if name != _SCORE for point in lines[name]), default=1.0)
    )
    tops = {name: 1.0 if name == _SCORE else ticks[-1] for name in lines}
    drawn = [
        *(f'<path class="grid" d="M0 {_y(tick, ticks[-1])}H{_SIDE}"/>' for tick in ticks),
        *(f'<path class="mark" d="M{_x(step, last)} 0V{_SIDE}"/>' for step in marks.values()),
        *(_line(name, points, last, tops[name]) for name, points in lines.items()),
        *_hints(lines, last),
    ]
    return (
        f'<div class="curve">{_legend(lines, marks)}<div class="frame">{_axis("left", ticks)}'
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" role="img" '
        f'aria-label="Figures by step">{"".join(drawn)}</svg>'
        f"{_axis('right', _SCORES) if _SCORE in lines else ''}</div>"
        f'<div class="steps"><span>0</span><span>step</span><span>{last:,}</span></div></div>'
    )


def _finite(points: Iterable[Point]) -> list[Point]:
    return [point for point in points if isfinite(point.value)]


def _ticks(highest: float) -> list[float]:
    """From 0 up to the first that is not below `highest`, about four, in steps of 1, 2 or 5 and a power of
    ten."""
    rough = (highest or 1.0) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    return [step * count for count in range(ceil(highest / step) + 1)]


def _x(step: int, last: int) -> str:
    return f"{_SIDE * step / last:.1f}"


def _y(value: float, top: float) -> str:
    """Downwards, as drawings go."""
    return f"{_SIDE * (1 - value / top):.1f}"


def _legend(names: Iterable[str], marks: Iterable[str]) -> str:
    entries = [f'<span class="{_kind(name)}">{_LEGEND[name]}</span>' for name in names]
    entries += [f'<span class="mark">{escape(words)}</span>' for words in marks]
    return f'<div class="legend">{"".join(entries)}</div>'


def _axis(side: str, ticks: Sequence[float]) -> str:
    labels = (f'<span style="bottom:{tick / ticks[-1]:.1%}">{tick:g}</span>' for tick in ticks)
    return f'<div class="axis {side}">{"".join(labels)}</div>'


def _line(name: str, points: Sequence[Point], last: int, top: float) -> str:
    """The line, and a dot at each point where they are few: one alone makes no line."""
    places = [f"{_x(point.step, last)} {_y(point.value, top)}" for point in points]
    line = f'<path class="line {_kind(name)}" d="M{"L".join(places)}"/>'
    if len(places) > _MAX_DOTS:
        return line
    dots = "".join(f"M{place}h0" for place in places)
    return f'{line}<path class="dots {_kind(name)}" d="{dots}"/>'


def _kind(name: str) -> str:
    return name.replace(" ", "-")


def _hints(lines: Mapping[str, Sequence[Point]], last: int) -> Iterator[str]:
    """Strips side by side, each of which tells the last figures in it under the mouse."""
    steps = {name: [point.step for point in points] for name, points in lines.items()}
    ends = sorted({step for each in steps.values() for step in each})
    ends = ends[:: -ceil(len(ends) / _MAX_HINTS)][::-1]
    for before, end in pairwise([0, *ends]):
        told = [f"step {end:,}"]
        for name, points in lines.items():
            newest = bisect_right(steps[name], end) - 1
            if newest >= 0 and steps[name][newest] > before:
                told.append(f"{name} {points[newest].value:.3f}")
        width = _SIDE * (end - before) / last
        yield (
            f'<rect x="{_x(before, last)}" width="{width:.1f}" height="{_SIDE}">'
            f"<title>{', '.join(told)}</title></rect>"
        )
