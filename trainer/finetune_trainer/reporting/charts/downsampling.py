"""Long lines with fewer points: thinned without losing extremes, and smoothed."""

from collections.abc import Sequence

from finetune_trainer.reporting.metric_curves import Point


def thin(points: Sequence[Point], buckets: int) -> list[Point]:
    """Keep the first, lowest, highest, and last point of each of `buckets` equal spans of steps."""
    if len(points) <= 4 * buckets:
        return list(points)
    first, span = points[0].step, points[-1].step - points[0].step + 1
    kept: list[Point] = []
    start = 0
    for bucket in range(buckets):
        end = start
        while end < len(points) and (points[end].step - first) * buckets < (bucket + 1) * span:
            end += 1
        part = points[start:end]
        if part:
            low = min(part, key=lambda point: point.value)
            high = max(part, key=lambda point: point.value)
            kept += sorted({part[0], low, high, part[-1]})
        start = end
    return kept


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """The mean of up to `window` points around each point."""
    sums = [0.0]
    for point in points:
        sums.append(sums[-1] + point.value)
    half = window // 2
    smoothed = []
    for index, point in enumerate(points):
        low, high = max(0, index - half), min(len(points), index + half + 1)
        smoothed.append(Point(point.step, (sums[high] - sums[low]) / (high - low)))
    return smoothed
