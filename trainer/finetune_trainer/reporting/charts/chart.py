"""Line charts as inline SVG: no script, colors from the style sheet, tooltips as <title>."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from finetune_trainer.reporting.charts.axes import Scale, Unit, step_scale, value_scale
from finetune_trainer.reporting.charts.downsampling import smooth, thin
from finetune_trainer.reporting.charts.lines import Line, describe, summarize
from finetune_trainer.reporting.formatting import number, percent
from finetune_trainer.reporting.metric_curves import Point

# One unit is about one pixel on a phone, and a little more on a wide screen.
WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 20, 24
BUCKETS = 180  # of a thinned line, with up to four points each
SMOOTHED_FROM = 240  # points; shorter lines are readable without a running mean
DOTS_UP_TO = 40  # points
LINES_IN_FULL = 2  # charts with more lines get short summaries
SMALL, LARGE = 2.6, 4.0  # radius of a dot for one batch, and for the whole file
NEAR = 1.0  # units; lines that are closer hide each other
DASH = 12.0  # units from the start of one dash to the start of the next
HOVERS = 60
LABELED_MARKS = 12
LOST_SHOWN = 20


@dataclass(frozen=True)
class Mark:
    """A vertical line at the end of an epoch or at the step from which an attempt continued."""

    step: int
    label: str
    kind: str = "epoch"


@dataclass(frozen=True)
class Chart:
    """Lines over the steps of a run."""

    title: str
    lines: Sequence[Line]
    last_step: int  # of the run, so that all charts have the same horizontal axis
    unit: Unit = "plain"
    may_be_logarithmic: bool = False
    is_noisy: bool = True  # whether a long line gets a running mean
    marks: Sequence[Mark] = ()

    @property
    def is_logarithmic(self) -> bool:
        return self._values_scale.is_logarithmic

    @property
    def legend(self) -> list[tuple[str, str]]:
        """CSS classes and label of each part of each line; the key has the shape of its dots."""
        found = []
        for index, line in enumerate(self.lines):
            batches, *whole = line.parts
            has_circles = whole and len(batches.finite) <= DOTS_UP_TO
            found.append((f"line{index}{' circle' if has_circles else ''}", batches.label))
            found += [(f"line{index} disc", part.label) for part in whole]
        return found

    @property
    def _parts(self) -> list[Line]:
        return [part for line in self.lines for part in line.parts]

    @property
    def _values_scale(self) -> Scale:
        values = [point.value for line in self.lines for point in line.finite]
        return value_scale(values, self.unit, may_be_logarithmic=self.may_be_logarithmic)

    @property
    def summary(self) -> list[str]:
        """The text alternative of the chart: one sentence for each line."""
        is_short = len(self.lines) > LINES_IN_FULL
        return [summarize(line, self.write, is_short=is_short) for line in self._parts]

    def write(self, value: float) -> str:
        return percent(value) if self.unit == "percent" else number(value)

    def svg(self) -> Markup:
        """Draw the chart. Its lines have the CSS classes line0, line1, ... in their order."""
        frame = _Frame(step_scale(1, self.last_step), self._values_scale)
        parts = [
            *_grid(frame),
            *_marks(frame, self.marks),
            *_hovers(frame, self._parts, self.write),
            *(drawn for index in range(len(self.lines)) for drawn in self._line(frame, index)),
            *(part for line in self.lines for part in _lost(frame, line)),
        ]
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDTH, HEIGHT, f"{self.title}. {'; '.join(self.summary)}", Markup("").join(parts)
        )

    def _line(self, frame: "_Frame", index: int) -> list[Markup]:
        parts = self.lines[index].parts
        points, found = parts[0].finite, []
        below = frame.below(self.lines, index)
        if self.is_noisy and len(points) >= SMOOTHED_FROM:
            raw = frame.path(thin(points, BUCKETS))
            found.append(Markup('<path class="raw line{}" d="{}"/>').format(index, raw))
            points = smooth(points, len(points) // 60)
        if len(points) > 1:
            drawn = frame.path(thin(points, BUCKETS))
            dashes = _dashes(below)
            found.append(
                Markup('<path class="line line{}" d="{}"{}/>').format(index, drawn, dashes)
            )
        radius = max(1.0, SMALL - 0.9 * below)  # a ring of the dots below stays visible
        if len(parts) > 1:
            found += self._dots(frame, index, parts[0], "batch", radius)
            found += self._dots(frame, index, parts[1], "whole", LARGE)
        else:
            found += self._dots(frame, index, parts[0], "dot", radius)
        return found

    def _dots(
        self, frame: "_Frame", index: int, part: Line, kind: str, radius: float
    ) -> list[Markup]:
        """Dots of a part; long lines have none, except for the few of the whole file."""
        if len(part.finite) > DOTS_UP_TO and kind != "whole":
            return []
        return [
            Markup(
                '<circle class="{} line{}" cx="{}" cy="{}" r="{:.1f}"><title>{}</title></circle>'
            ).format(
                kind,
                index,
                f"{frame.x(point.step):.1f}",
                f"{frame.y(point.value):.1f}",
                radius,
                f"{part.label} {self.write(point.value)}, step {point.step:,}",
            )
            for point in part.finite
        ]


@dataclass(frozen=True)
class _Frame:
    """The mapping from steps and values to SVG units."""

    across: Scale
    up: Scale

    def x(self, step: float) -> float:
        return LEFT + self.across.place(step) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.up.place(value) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(p.step):.1f} {self.y(p.value):.1f}" for p in points)

    def below(self, lines: Sequence[Line], index: int) -> int:
        """The number of earlier lines that this line would hide."""
        own = lines[index].finite
        return sum(self._run_together(own, other.finite) for other in lines[:index])

    def _run_together(self, one: Sequence[Point], other: Sequence[Point]) -> bool:
        """Whether two lines have the same steps and one hides the other between any two."""
        if [point.step for point in one] != [point.step for point in other]:
            return False
        near = [
            abs(self.y(a.value) - self.y(b.value)) < NEAR for a, b in zip(one, other, strict=True)
        ]
        return all(near) or any(a and b for a, b in pairwise(near))


def _dashes(below: int) -> Markup:
    """Dashes that keep every line below visible."""
    if not below:
        return Markup("")
    on = DASH / (below + 1)
    return Markup(' stroke-dasharray="{:.1f} {:.1f}"').format(on, DASH - on)


def _grid(frame: _Frame) -> list[Markup]:
    parts = []
    for value, text in frame.up.ticks:
        y = f"{frame.y(value):.1f}"
        parts.append(
            Markup(
                '<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}" dy=".32em" class="up">'
            ).format(LEFT, y, WIDTH - RIGHT, LEFT - 6, y)
        )
        parts.append(escape(text) + Markup("</text>"))
    for step, text in frame.across.ticks:
        x = f"{frame.x(step):.1f}"
        parts.append(
            Markup(
                '<path class="grid" d="M{} {}v4"/><text x="{}" y="{}" class="{}">{}</text>'
            ).format(x, HEIGHT - BOTTOM, x, HEIGHT - 6, _anchor(frame, step), text)
        )
    return parts


def _anchor(frame: _Frame, step: float) -> str:
    """Keep the last labels inside the chart."""
    return "end" if frame.across.place(step) > 0.96 else "across"


def _marks(frame: _Frame, marks: Sequence[Mark]) -> list[Markup]:
    parts = []
    inside = [m for m in marks if frame.across.low <= m.step <= frame.across.high]
    epochs = sum(mark.kind == "epoch" for mark in inside)
    every = -(-epochs // LABELED_MARKS) or 1
    for index, mark in enumerate(inside):
        x = f"{frame.x(mark.step):.1f}"
        parts.append(
            Markup('<path class="{}" d="M{} {}V{}"><title>{}</title></path>').format(
                mark.kind, x, TOP, HEIGHT - BOTTOM, f"{mark.label}, step {mark.step:,}"
            )
        )
        if mark.kind == "epoch" and (index + 1) % every == 0:
            text = mark.label if epochs <= 4 else mark.label.rpartition(" ")[2]
            parts.append(
                Markup('<text x="{}" y="{}" class="{} soft">{}</text>').format(
                    x, TOP - 7, _anchor(frame, mark.step), text
                )
            )
    return parts


def _lost(frame: _Frame, line: Line) -> list[Markup]:
    """A cross at the upper edge for each value that is NaN or infinite."""
    lost = [point for point in line.points if not math.isfinite(point.value)]
    return [
        Markup('<text class="lost" x="{}" y="{}">×<title>{}</title></text>').format(
            f"{frame.x(point.step):.1f}",
            TOP + 10,
            f"{line.label} is {number(point.value)}, step {point.step:,}",
        )
        for point in lost[:LOST_SHOWN]
    ]


def _hovers(frame: _Frame, lines: Sequence[Line], write: Callable[[float], str]) -> list[Markup]:
    """Invisible columns with the values of all lines as a tooltip."""
    low, high = math.ceil(frame.across.low), math.floor(frame.across.high)
    count = min(HOVERS, high - low + 1)
    edges = [low + (high + 1 - low) * index / count for index in range(count + 1)]
    left, right = LEFT, WIDTH - RIGHT
    parts = []
    for place, (begin, end) in enumerate(pairwise(edges)):
        texts = [text for line in lines if (text := describe(line, begin, end, write))]
        if not texts:
            continue
        first, last = math.ceil(begin), math.ceil(end) - 1
        where = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
        x = left + (right - left) * place / count
        parts.append(
            Markup(
                '<rect class="hover" x="{}" y="{}" width="{}" height="{}"><title>{}</title>'
            ).format(
                f"{x:.1f}",
                TOP,
                f"{(right - left) / count:.1f}",
                HEIGHT - TOP - BOTTOM,
                "\n".join([where, *texts]),
            )
            + Markup("</rect>")
        )
    return parts
