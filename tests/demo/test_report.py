"""The report: its checks, and its width of at most 80 columns."""

from __future__ import annotations

import dataclasses

import pytest

from examples.demo import report
from examples.demo.cluster import Cluster
from examples.demo.kind import STOP
from examples.demo.report import Outcome, Results
from examples.demo.samples import Answers, Sample
from examples.demo.terminal import WIDTH, clock
from finetune_api.finetune_status import EventEntry
from tests.demo.test_demo import INFO

OUTCOME = Outcome(
    base_loss=(7.6, 5.4), loss=(6.2, 1.4), accuracy=0.73, majority_share=0.11, rows=326
)
ANSWERS = Answers(
    rows=326,
    right=238,
    samples=[
        Sample("Return True if the request for closing can be honored. " * 3, "xml", "xml"),
        Sample("Stop the loop.", "asyncio", "multiprocessing"),
        Sample("x", "multiprocessing", "multiprocessing…"),
    ],
)
EVENTS = [
    EventEntry(at="2026-11-21T00:00:01Z", reason="Created", message="Created fine-tune"),
    EventEntry(
        at="2026-11-21T00:01:01Z",
        reason="EpochCompleted",
        message="Completed epoch 1/4 (training loss 2.8530, validation loss 2.9134, validation "
        "sequence accuracy 0.3780, learning rate 0.00185)",
    ),
    EventEntry(
        at="2026-11-21T00:02:01Z",
        level="warning",
        reason="Restarting",
        message="Uploaded model: ada:ft-demo:" + "a" * 90,
    ),
]


def csv(steps: int) -> str:
    lines = ["step,training_loss,validation_loss,validation_sequence_accuracy"]
    for step in range(1, steps + 1):
        measured = (
            f"{4 / step + 1:.4f},{step / steps:.4f}" if step % 8 == 1 or step == steps else ","
        )
        lines.append(f"{step},{6 / step + 1:.4f},{measured}")
    return "\n".join(lines) + "\n"


def test_the_block_to_paste_neither_trains_again_nor_stops_the_cluster() -> None:
    place = Cluster.from_info(INFO, {})
    lines = report.next_lines(place.shell, "ns", place.again, place.stop)
    end = lines.index("")
    block, rest = lines[:end], " ".join(lines[end:])
    assert all(line.startswith("    ") for line in block)
    assert "make " not in " ".join(block)
    assert "`make demo`" in rest and "`make down`" in rest
    assert block[0].startswith('    eval "$(python3 -m devcluster env)"')
    assert "KUBECONFIG=" not in " ".join(block)  # `env` exports it


def test_another_cluster_is_named_by_its_kubeconfig_and_not_stopped() -> None:
    foreign = {**INFO, "kubeconfig": "/kube", "bin": "/bin/k", "s3": None}
    settings = ("DEMO_REGISTRY", "DEMO_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    place = Cluster.from_info(foreign, dict.fromkeys(settings, "x"))
    text = "\n".join(report.next_lines(place.shell, "ns", place.again, place.stop))
    assert "    export KUBECONFIG=/kube\n    export PATH=/bin/k:$PATH\n" in text
    assert "devcluster" not in text
    assert "make down" not in text


@pytest.mark.parametrize("steps", [1, 3, 40, 292])
def test_every_line_fits_80_columns(steps: int) -> None:
    results = Results.parse(csv(steps))
    lines = [
        *report.loss_lines(results),
        *report.accuracy_lines(OUTCOME, ANSWERS),
        *report.sample_lines(ANSWERS),
        *report.time_lines([("FineTune classify: continue from base", 83.4), ("data", 3.2)]),
        *report.next_lines(
            Cluster.from_info(INFO, {}).shell, "ns", "make demo CLUSTER=kind", f"`{STOP}` stops it."
        ),
        *report.events_table(EVENTS[:2]),
    ]
    assert [line for line in lines if len(line) > WIDTH] == []


def test_long_events_span_several_lines() -> None:
    lines = report.events_table(EVENTS)
    text = " ".join(line[14:] for line in lines)
    assert "Completed epoch 1/4 (training loss 2.8530, validation loss 2.9134, validation" in text
    assert "learning rate 0.00185)" in text
    assert "warning: Uploaded model:" in text
    assert all(line[4:12].count(":") == 2 for line in lines if line[4] != " ")


def test_first_and_last_loss_are_means_over_a_twentieth_of_the_steps() -> None:
    results = Results({"training_loss": [float(value) for value in range(100, 0, -1)]})
    assert results.first_and_last("training_loss") == (98.0, 3.0)
    assert results.first_and_last("nothing") == (0.0, 0.0)


def test_a_chart_of_the_validation_ends_with_the_whole_file() -> None:
    lines = report.loss_lines(Results.parse(csv(40)))
    assert [line.split()[-1] for line in lines] == ["1.152", "1.100", "1.000"]


def test_empty_cells_are_no_zeros() -> None:
    results = Results.parse("step,training_loss,validation_loss\n1,2.5,\n2,1.5,3.5\n")
    assert results.columns["validation_loss"] == [None, 3.5]
    assert results.measured("validation_loss") == [3.5]
    assert Results.parse("").measured("training_loss") == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([5.0], "▁"),
        ([1.0, 1.0, 1.0], "▁▁▁"),
        ([8.0, 1.0], "█▁"),
        ([8, 7, 6, 5, 4, 3, 2, 1], "█▇▆▅▄▃▂▁"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(
    values: list[float], expected: str
) -> None:
    assert report.sparkline(values) == expected


def test_a_sparkline_of_many_values_has_a_column_for_their_mean() -> None:
    assert report.sparkline([float(i) for i in range(1000)], 8) == "▁▂▃▄▅▆▇█"


def test_good_results_fail_no_check() -> None:
    assert report.failed_checks(OUTCOME) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_loss": (5.4, 5.4)}, "The training loss of base did not fall: 5.400 to 5.400."),
        ({"loss": (1.0, 2.0)}, "The training loss of classify did not fall: 1.000 to 2.000."),
        ({"loss": (0.0, 0.0)}, "The training loss of classify did not fall"),
        ({"loss": (1.0, float("nan"))}, "The training loss of classify did not fall"),
        ({"rows": 299}, "There are 299 validation rows instead of 300 or more."),
        ({"accuracy": 0.219}, "0.219, less than 2 times the share of the majority class (0.110)"),
    ],
)
def test_each_failed_check_is_a_sentence(changes: dict[str, object], words: str) -> None:
    failed = report.failed_checks(dataclasses.replace(OUTCOME, **changes))  # type: ignore[arg-type]
    assert len(failed) == 1
    assert words in failed[0]


def test_seconds_are_formatted() -> None:
    assert [clock(s) for s in (0.2, 59.4, 60, 1505)] == ["0 s", "59 s", "1 min 00 s", "25 min 05 s"]
