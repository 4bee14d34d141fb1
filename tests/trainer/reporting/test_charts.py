"""SVG charts: all values are inside the chart and have tooltips."""

import re

import pytest

from finetune_trainer.reporting.charts.axes import Unit
from finetune_trainer.reporting.charts.chart import HEIGHT, HOVERS, WIDTH, Chart, Mark
from finetune_trainer.reporting.charts.lines import Line
from finetune_trainer.reporting.metric_curves import Point


def run_of(steps: int) -> list[Point]:
    return [Point(step, 4.0 - 3.0 * step / steps) for step in range(1, steps + 1)]


def chart(points: list[Point], *, unit: Unit = "plain", **others: object) -> Chart:
    last = points[-1].step
    return Chart("Loss", [Line("training_loss", "training", points)], last, unit, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 2, 3, 39, 41, 239, 240, 5000])
def test_everything_is_inside_the_chart(steps: int) -> None:
    svg = chart(run_of(steps)).svg()
    numbers = re.findall(r'd="M([^"]+)"', svg)
    drawn = [pair.split() for path in numbers for pair in path.split("L") if "H" not in pair]
    places = [(float(p[0]), float(p[1])) for p in drawn if "v" not in p[1] and "V" not in p[1]]
    places += [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', svg)]
    assert places
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)


def test_few_points_are_dots_with_their_values() -> None:
    svg = chart([Point(3, 1.5), Point(9, 1.25)]).svg()
    assert svg.count("<circle") == 2
    assert "<title>training 1.25, step 9</title>" in svg


def test_many_points_are_a_running_mean_over_a_pale_line() -> None:
    svg = chart(run_of(5000)).svg()
    assert svg.count('class="raw line0"') == 1
    assert svg.count('class="line line0"') == 1
    assert "<circle" not in svg
    assert 'class="raw' not in chart(run_of(5000), is_noisy=False).svg()


@pytest.mark.parametrize("steps", [1, 2, 59, 60, 61, 1000, 12345])
def test_hover_columns_cover_every_step_once(steps: int) -> None:
    svg = chart(run_of(steps)).svg()
    covered: list[int] = []
    for first, last in re.findall(r"<title>steps? ([\d,]+)(?: to ([\d,]+))?\n", svg):
        begin = int(first.replace(",", ""))
        covered += range(begin, int((last or first).replace(",", "")) + 1)
    assert covered == list(range(1, steps + 1))
    assert svg.count('class="hover"') == min(HOVERS, steps)


def test_epochs_are_marked_and_labeled_as_long_as_there_is_room() -> None:
    for epochs, labels in ((4, 4), (12, 12), (50, 10)):
        marks = [Mark(20 * n, f"epoch {n}") for n in range(1, epochs + 1)]
        svg = chart(run_of(1000), marks=marks).svg()
        assert svg.count('class="epoch"') == epochs
        assert svg.count(' soft">') == labels


def test_a_chart_has_a_text_alternative() -> None:
    points = [Point(1, 3.0), Point(2, 5.0), Point(3, 0.5), Point(4, 1.0)]
    assert chart(points).summary == [
        "training: from 3 to 1, lowest 0.5 at step 3, highest 5 at step 2"
    ]
    assert 'aria-label="Loss. training: from 3 to 1' in chart(points).svg()


def test_a_chart_of_nan_only_is_drawn() -> None:
    found = chart([Point(1, float("nan"))])
    assert found.summary == ["training: no finite value"]
    assert "not a number, step 1" in found.svg()


def mixed() -> Chart:
    """One batch at every tenth step, the whole file at 50 and 100."""
    points = [Point(step, 3.0 - step / 50 + step % 20 / 100) for step in range(10, 101, 10)]
    return Chart("Loss", [Line("validation_loss", "validation", points, {50, 100})], 100)


def test_points_of_the_whole_file_differ_from_those_of_one_batch() -> None:
    svg = mixed().svg()
    assert svg.count('class="batch line0"') == 8
    assert svg.count('class="whole line0"') == 2
    assert "<title>validation, whole file 1, step 100</title>" in svg
    [path] = re.findall(r'class="line line0" d="([^"]+)"', svg)
    assert path.count("L") == 7  # only through batches: no zigzag
    assert mixed().summary == [
        "validation, one batch: from 2.9 to 1.3, lowest 1.3 at step 90, highest 2.9 at step 10",
        "validation, whole file: from 2.1 to 1, lowest 1 at step 100, highest 2.1 at step 50",
    ]


def test_points_of_the_whole_file_are_seen_on_a_long_line_too() -> None:
    ends = {1000, 2000}
    line = Line("validation_loss", "validation", run_of(2000), ends)
    long = Chart("Loss", [line], 2000)
    svg = long.svg()
    assert mixed().legend[0] == ("line0 circle", "validation, one batch")
    assert long.legend == [
        ("line0", "validation, one batch"),
        ("line0 disc", "validation, whole file"),
    ]
    assert svg.count("<circle") == svg.count('class="whole line0"') == 2


def classes(*lines: list[float]) -> str:
    made = [
        Line(str(index), str(index), [Point(step, value) for step, value in enumerate(values, 1)])
        for index, values in enumerate(lines)
    ]
    return Chart("Classification", made, 9, "percent").svg()


def test_a_line_that_covers_another_is_dashed() -> None:
    apart = classes([0.1, 0.4, 0.7], [0.2, 0.6, 0.9])
    assert "stroke-dasharray" not in apart
    assert set(re.findall(r' r="([\d.]+)"', apart)) == {"2.6"}
    same = classes([0.1, 0.4, 0.7], [0.2, 0.4, 0.7], [0.1, 0.4, 0.7])
    assert re.findall(r'class="line line(\d)"[^>]* stroke-dasharray="([^"]+)"', same) == [
        ("1", "6.0 6.0"),
        ("2", "4.0 8.0"),
    ]
    assert re.findall(r'class="dot line(\d)"[^>]* r="([\d.]+)"', same)[::3] == [
        ("0", "2.6"),
        ("1", "1.7"),
        ("2", "1.0"),
    ]


def test_a_constant_value_has_a_short_summary() -> None:
    points = [Point(step, 0.9804) for step in (5, 10, 15)]
    assert chart(points).summary == ["training: always 0.9804"]
    assert chart(points, unit="percent").summary == ["training: always 98.0%"]
