"""The text about a FineTune in `follow`, `get`, and `list`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_cli.commands.follow.ending import ending_lines
from finetune_cli.commands.follow.event_history import EventHistory
from finetune_cli.commands.get import show
from finetune_cli.commands.list import row
from finetune_cli.terminal import format
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.format import gib_text
from finetune_cli.terminal.status_line import bar, live_parts, plain_line, status_line
from tests.cli.statuses import resolved

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "age", "words"),
    [
        (-5, "0s", "0 s"),
        (45, "45s", "45 s"),
        (119, "119s", "2 min"),
        (600, "10m", "10 min"),
        (7199, "119m", "2 h"),
        (12000, "3h", "3 h 20 min"),
        (200000, "2d", "2 d 7 h"),
    ],
)
def test_times_are_short(seconds: float, age: str, words: str) -> None:
    assert format.short_age(seconds) == age
    assert format.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB"), (2**42, "4.0 TiB")],
)
def test_sizes_have_units(count: int, words: str) -> None:
    assert format.size(count) == words


@given(st.text(max_size=30), st.integers(3, 20))
def test_a_shortened_name_keeps_both_ends(text: str, width: int) -> None:
    found = format.shortened(text, width)
    assert found == text if len(text) <= width else len(found) == width
    start, _, end = found.partition("…") if "…" not in text else (found, "", "")
    assert text.startswith(start)
    assert text.endswith(end)


def entry(number: int) -> EventEntry:
    return EventEntry(at="2026-11-21T12:00:00Z", reason="Said", message=f"event {number}")


@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.lists(st.integers(1, 5), max_size=40),
)
def test_every_event_is_shown_once_although_only_the_newest_are_kept(
    numbers: list[int], growth: list[int]
) -> None:
    """Equal events included, as long as no update brings more than are kept."""
    stream = [entry(100 * index + number) for index, number in enumerate(numbers)]
    history, told, length = EventHistory(), [], 0
    for step in growth:
        length += step
        told += history.new_events(stream[:length][-8:])
    assert told == stream[:length]


def test_an_event_whose_fields_an_upgrade_of_the_operator_fills_is_shown_once() -> None:
    history, events = EventHistory(), [entry(1), entry(2)]
    assert history.new_events(events) == events
    assert history.new_events([item.replace(attempt=1, key="x") for item in events]) == []


RUNNING: dict[str, Any] = {
    "state": "running",
    "stage": "training",
    "message": "training",
    "progress": {
        "step": 410,
        "steps": 1000,
        "percent": "41 %",
        "loss": 1.20441,
        "validationLoss": 1.5,
        "tokensPerSecond": 12345.6,
        "eta": (NOW + timedelta(minutes=8)).isoformat(),
    },
}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, "pending  waiting for the operator"),
        (
            {"state": "pending", "stage": "queued", "message": "0/3 nodes have a GPU free"},
            "pending  queued  0/3 nodes have a GPU free",
        ),
        (
            RUNNING,
            "running  training  41 %  step 410/1,000  loss 1.2044  12,346 tok/s  8 min left  "
            "validation 1.5000",
        ),
        (
            {"state": "running", "stage": "starting", "message": "loading"},
            "running  starting  loading",
        ),
        (
            {"state": "running", "progress": {"step": 0, "steps": 0}, "message": "m"},
            "running  m",
        ),
    ],
)
def test_a_pipe_gets_one_plain_line(status: dict[str, Any], line: str) -> None:
    assert plain_line(FineTuneStatus.model_validate(status), NOW) == line


@given(
    st.integers(20, 200), st.sampled_from([RUNNING, {}, {"state": "pending", "message": "x" * 300}])
)
def test_the_live_line_fits_every_terminal(width: int, status: dict[str, Any]) -> None:
    found = status_line(FineTuneStatus.model_validate(status), NOW)
    state, drawn, words = live_parts(found, width)
    gaps = 2 * (2 if drawn else 1)
    needed = len(state) + len(drawn) + len(words) + gaps
    # the state and the first word are never dropped
    assert needed <= max(width, len(state) + 2 + len("step 410/1,000") + 4)


def test_at_eighty_columns_the_live_line_has_step_loss_speed_and_time_left() -> None:
    state, drawn, words = live_parts(status_line(FineTuneStatus.model_validate(RUNNING), NOW), 79)
    assert state == "training"
    assert len(drawn) >= 8
    assert words == "step 410/1,000  loss 1.2044  12,346 tok/s  8 min left"


@given(st.floats(-1, 2), st.integers(1, 60))
def test_a_bar_is_as_wide_as_it_was_asked_to_be(share: float, width: int) -> None:
    drawn = bar(share, width)
    assert len(drawn) == width
    assert bar(0, width) == "░" * width
    assert bar(1, width) == "█" * width


def finetune(status: dict[str, Any], **spec: Any) -> FineTune:
    return FineTune.parse(
        {
            "metadata": {"name": "tone", "namespace": "team", "uid": "u-1"},
            "spec": {"trainingFile": "s3://acme/train.jsonl", **spec},
            "status": status,
        }
    )


FAILED = {
    "state": "failed",
    "message": "3 lines are wrong",
    "error": {
        "code": "InvalidData",
        "message": "3 lines of the training file are wrong",
        "param": "trainingFile",
        "hint": "prepare-data mends them",
        "lines": ["line 3: no completion"],
        "log": ["Traceback"],
        "rank": 2,
        "exitCode": 65,
    },
}


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (
            {"state": "succeeded", "fineTunedModel": "ada:ft-team-1", "modelUri": "s3://a/m"},
            [
                "Job complete! Status: succeeded",
                "Model: ada:ft-team-1",
                "Files: s3://a/m",
                "Plot:     finetune results tone -n team --plot",
                "Download: finetune models pull ada:ft-team-1 -n team",
                "Generate: finetune complete tone -n team -p PROMPT",
            ],
        ),
        (
            FAILED,
            [
                "Job failed. 3 lines of the training file are wrong",
                "Field: spec.trainingFile",
                "  line 3: no completion",
                "hint: prepare-data mends them",
                "Details: finetune get tone -n team",
            ],
        ),
        (
            {"state": "failed", "message": "no pod"},
            ["Job failed. no pod", "Details: finetune get tone -n team"],
        ),
        (
            {"state": "cancelled"},
            [
                "Job cancelled. Its checkpoint and partial results are kept.",
                "Details: finetune get tone -n team",
            ],
        ),
        (
            {"state": "succeeded", "reason": "DryRun"},
            ["Data checked, nothing trained. Status: succeeded"],
        ),
        (
            {
                "state": "succeeded",
                "reason": "DryRun",
                "resolved": resolved("acme")
                | {
                    "steps": 1200,
                    "memoryPerRankGib": 60.84,
                    "memoryPerPodGib": 1130.25,
                    "storagePerPodGib": 121.4,
                },
            },
            [
                "Data checked, nothing trained. Status: succeeded",
                "  1,200 steps",
                "  about 60.8 GiB of memory per GPU",
                "  about 1,130.2 GiB of host memory per pod",
                "  about 121.4 GiB of files per pod",
            ],
        ),
    ],
)
def test_the_end_says_what_came_out_and_the_next_step(
    status: dict[str, Any], wanted: list[str]
) -> None:
    lines = ending_lines(finetune(status), "finetune", " -n team")
    assert [text for text, _ in lines] == wanted


@pytest.mark.parametrize(
    ("value", "text"),
    [(1130.25, "1,130.2 GiB"), (60.84, "60.8 GiB"), (0.1, "0.1 GiB"), (0.0134, "0.013 GiB")],
)
def test_an_estimate_is_never_shown_as_nothing(value: float, text: str) -> None:
    assert gib_text(value) == text


def test_a_list_survives_a_status_of_another_version() -> None:
    item = {
        "metadata": {"name": "a"},
        "spec": {},
        "status": {"state": "odd", "progress": {"loss": "?"}},
    }
    assert row(item, NOW) == ("a", "odd", "", "", "", "", "", "")


def test_get_shows_the_cause_of_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = [
        {"number": 1, "startedAt": "t", "reason": "NodeLost", "counted": False},
        {
            "number": 2,
            "startedAt": "t",
            "resumedFromStep": 120,
            "reason": "RankCrashed",
            "message": "exit code 1",
            "rank": 3,
        },
    ]
    show(Screen(), finetune({**FAILED, "attempts": attempts}, cancel=True), NOW)
    text = capsys.readouterr().out
    assert "failed  InvalidData\n  3 lines of the training file are wrong" in text
    assert text.count("3 lines of the training file are wrong") == 1
    assert "rank       2" in text
    assert "exit code  65" in text
    assert "  | line 3: no completion\n  | Traceback\n" in text
    assert "1  NodeLost, does not count toward maxRestarts" in text
    assert "2  from step 120, RankCrashed: exit code 1, rank 3" in text
    assert "requested      cancel" in text


def with_settings(nodes: int, gpus: int, *, stage: int, batch: int) -> FineTune:
    return finetune(
        {
            "state": "running",
            "resolved": {
                **resolved("acme"),
                "zeroStage": stage,
                "hyperparameters": {
                    "nEpochs": 1,
                    "batchSize": batch,
                    "learningRate": 0.001,
                    "lrSchedule": "cosine",
                    "promptLossWeight": 0.1,
                    "warmupRatio": 0.1,
                    "weightDecay": 0.1,
                    "seed": 1,
                    "maxSequenceLength": 256,
                },
            },
        },
        resources={"nodes": nodes, "gpusPerNode": gpus},
    )


@pytest.mark.parametrize(
    ("nodes", "gpus", "stage", "batch", "lines"),
    [
        (1, 0, 0, 1, ["hardware             1 node, CPU\n", "batch size           1 example\n"]),
        (2, 0, 1, 4, ["hardware             2 nodes, CPU, ZeRO 1\n", "4 examples\n"]),
        (1, 1, 0, 4, ["hardware             1 node × 1 GPU, cpu, ZeRO 0\n"]),
        (2, 8, 3, 4, ["2 nodes × 8 GPUs, cpu, ZeRO 3\n", "max sequence length  256 tokens\n"]),
    ],
)
def test_get_shows_the_settings(
    capsys: pytest.CaptureFixture[str],
    nodes: int,
    gpus: int,
    stage: int,
    batch: int,
    lines: list[str],
) -> None:
    show(Screen(), with_settings(nodes, gpus, stage=stage, batch=batch), NOW)
    text = capsys.readouterr().out
    assert [line for line in lines if line not in text] == []
