"""results.csv as numbers and as a picture of characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_cli.commands.results.chart import chart
from finetune_cli.commands.results.png import write_png
from finetune_cli.commands.results.table import Series, panels, parse
from finetune_cli.terminal.errors import CommandError

CSV = (
    "step,training_loss,training_token_accuracy,validation_loss\n"
    "1,2.5,0.1,\n2,2,0.2,2.25\n3,nan,0.3,\n4,1.5,0.4,1.75\n5,1.2"
)


def test_what_was_not_measured_is_left_out() -> None:
    table = parse(CSV, "s3://acme/results.csv")
    assert table.series("training_loss") == Series("training_loss", (1, 2, 4), (2.5, 2, 1.5))
    assert table.series("validation_loss").steps == (2, 4)
    assert table.records()[2] == {
        "step": 3,
        "training_loss": None,
        "training_token_accuracy": 0.3,
        "validation_loss": None,
    }
    assert len(table.rows) == 4  # the half line of a file that is being written is not there
    names = [[series.name for series in panel] for panel in panels(table)]
    assert names == [["training_loss", "validation_loss"], ["training_token_accuracy"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a results.csv"),
        ("<html>\n", "is not a results.csv"),
        ("step,training_loss\n1,x\n", "line 2: a cell is not a number"),
    ],
)
def test_a_file_that_is_not_a_results_file_is_an_error(text: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        parse(text, "here")


def test_an_unknown_column_names_those_there_are() -> None:
    with pytest.raises(CommandError) as caught:
        panels(parse(CSV, "here"), ["loss"])
    assert "training_token_accuracy" in caught.value.hint


values = st.floats(-1e6, 1e6)


@settings(max_examples=25)
@given(
    st.lists(values, min_size=1, max_size=50),
    st.lists(values, max_size=9),
    st.integers(24, 120),
    st.integers(2, 20),
)
def test_a_chart_fits_and_draws_its_extremes(
    line: list[float], marks: list[float], width: int, height: int
) -> None:
    panel = [Series("training_loss", tuple(map(float, range(len(line)))), tuple(line))]
    if marks:
        panel.append(Series("v", tuple(map(float, range(len(marks)))), tuple(marks)))
    title, *rows, axis, _ = chart(panel, width, height)
    assert len(rows) == height
    assert max(map(len, [*rows, axis])) <= width
    assert "training_loss" in title
    drawn = [set(row.partition("┤")[2]) - {" "} for row in rows]
    if max(line + marks) > min(line + marks):
        assert drawn[0]
        assert drawn[-1]


def test_one_step_is_one_dot() -> None:
    text = "\n".join(chart([Series("a", (1.0,), (2.0,))], 40, 4))
    assert sum(0x2801 <= ord(char) <= 0x28FF for char in text) == 1


def test_a_falling_line_falls() -> None:
    rows = chart([Series("a", (0.0, 1.0, 2.0), (2.0, 1.0, 0.0))], 33, 4)[1:5]
    starts = [len(row.partition("┤")[2]) - len(row.partition("┤")[2].lstrip()) for row in rows]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert len(rows[-1].rstrip()) == 33


@pytest.mark.slow
def test_a_png_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "loss.png"
    write_png(path, panels(parse(CSV, "here")), "tone")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 5000
