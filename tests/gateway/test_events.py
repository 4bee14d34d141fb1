"""Events of both APIs: numbers, ids, order, and rows of results.csv."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.fine_tuning import FineTuningJobEvent

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry
from finetune_api.wire import JsonObject
from finetune_gateway.wire.events import fine_tune_events, job_events, number_messages
from finetune_gateway.wire.metrics import MetricsRow, read_rows
from finetune_gateway.wire.step_times import step_times
from tests.gateway.fine_tune_lives import running, succeeded
from tests.support.objects import hyperparameters

AT = "2026-11-21T12:00:00Z"


def entry(seq: int | None = None, at: str = AT, level: str = "info", **more: object) -> EventEntry:
    fields = {"seq": seq, "at": at, "level": level, "reason": "Said", "message": "said"}
    return EventEntry.model_validate(fields | more)


def with_events(*entries: EventEntry) -> FineTune:
    finetune = running()
    return finetune.replace(status=finetune.status.replace(events=list(entries)))


def numbers(*seqs: int | None) -> list[int]:
    return [message.number for message in number_messages([entry(seq) for seq in seqs])]


def test_the_number_of_an_event_is_the_operators() -> None:
    assert numbers(17, 18, 25) == [17, 18, 25]


def test_events_of_an_earlier_operator_are_counted() -> None:
    assert numbers(None, None, None) == [1, 2, 3]
    assert numbers(None, None, 3) == [1, 2, 3]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 100), max_size=64))
def test_the_numbers_of_any_status_grow(seqs: list[int | None]) -> None:
    found = numbers(*seqs)
    assert found == sorted(set(found))
    assert not found or found[0] >= 1


@pytest.mark.parametrize(
    ("level", "shown"), [("info", "info"), ("warning", "warn"), ("error", "error")]
)
def test_a_warning_has_the_word_of_openai(level: str, shown: str) -> None:
    finetune = with_events(entry(17, level=level))
    (old,) = fine_tune_events(finetune)
    (new,) = [event.build() for event in job_events(finetune)]
    assert old == {
        "id": "ftevent-tone-17",
        "object": "fine-tune-event",
        "created_at": 1795262400,
        "level": shown,
        "message": "said",
    }
    assert (new["level"], new["object"], new["type"]) == (shown, "fine_tuning.job.event", "message")


def test_the_fine_tunes_api_has_the_oldest_first_and_the_fine_tuning_api_the_newest() -> None:
    finetune = with_events(entry(1), entry(2), entry(3))
    old = [event["id"] for event in fine_tune_events(finetune)]
    assert old == ["ftevent-tone-1", "ftevent-tone-2", "ftevent-tone-3"]
    assert [event.id for event in job_events(finetune)] == old[::-1]


def test_a_clock_that_was_set_back_changes_no_order() -> None:
    finetune = with_events(entry(1), entry(2, at="2020-01-01T00:00:00Z"), entry(3, at="never"))
    assert [event.id[-1] for event in job_events(finetune)] == ["3", "2", "1"]


CSV = """step,elapsed_tokens,training_loss,training_token_accuracy,validation_loss,gradient_norm
1,100,2.5,0.25,,1.5
2,200,2,0.5,2.25,1.25
3,300,1.5,0.75,,1
"""


def rows(text: str) -> list[MetricsRow]:
    return read_rows(text.encode())


def test_each_row_of_results_is_an_event_with_the_names_of_the_api() -> None:
    events = [event.build() for event in job_events(with_events(), rows(CSV))]
    assert [event["id"] for event in events] == [f"ftevent-tone-step-{n}" for n in (3, 2, 1)]
    assert events[1]["type"] == "metrics"
    assert events[1]["message"] == "Step 2/50: training loss=2, validation loss=2.25"
    assert events[1]["data"] == {
        "step": 2,
        "elapsed_tokens": 200,
        "train_loss": 2,
        "train_mean_token_accuracy": 0.5,
        "valid_loss": 2.25,
        "gradient_norm": 1.25,
        "total_steps": 50,
    }
    assert "valid_loss" not in events[2]["data"]
    for event in events:
        FineTuningJobEvent.model_validate(event, strict=True)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        ("\n\n", []),
        ("loss\n1\n", []),
        ("step,a\n", []),
        ("step,a\n1,2", [1]),
        ("step,a\n1\n2,3\n4,5,6\n", [2]),  # a row that is not complete
        ("step,a\r\n1,2\r\n", [1]),
        ("step,a\n3,1\n2,1\n3,2\n", [2, 3]),  # repeated after a resume: the last one counts
        ("step,a\n-1,2\nx,3\n1.5,4\n٣,5\n" + "9" * 40 + ",6\n", []),
        ("a,step\n1,2\n", [2]),
    ],
)
def test_only_complete_rows_are_events(text: str, steps: list[int]) -> None:
    assert [row.step for row in rows(text)] == steps


def test_a_number_without_a_value_is_no_metric() -> None:
    text = "step,a,b,c,d,e\n1,nan,inf,-1e999,x,0x1\n"
    assert rows(text)[0].data == {"step": 1}
    assert rows(text)[0].describe(None) == "Step 1"


@given(
    st.binary(max_size=200)
    | st.text(alphabet="step,19.e-\n\r\"'\0", max_size=200).map(
        lambda text: b"step,training_loss\n" + text.encode()
    )
)
def test_any_object_in_the_bucket_is_read(content: bytes) -> None:
    for event in job_events(with_events(), read_rows(content)):
        json.dumps(event.build(), allow_nan=False)


def test_the_time_of_a_step_is_between_those_that_are_known() -> None:
    started, epoch, ended = "12:00:00", "12:10:00", "12:30:00"
    day = "2026-11-21T"
    status = succeeded().status.replace(
        events=[
            entry(1, f"{day}{started}Z", reason="Started"),
            entry(2, f"{day}{epoch}Z", reason="EpochCompleted", key="1"),
        ],
        progress=None,
        finished_at=f"{day}{ended}Z",
    )
    assert status.resolved is not None
    assert (status.resolved.steps, hyperparameters().n_epochs) == (50, 2)
    time_of = step_times(status, 0)
    minutes = [(time_of(step) - 1795262400) / 60 for step in (-1, 0, 5, 25, 30, 50, 99)]
    assert minutes == [0, 0, 2, 10, 14, 30, 30]


def test_a_row_is_between_the_messages_of_its_time() -> None:
    finetune = with_events(
        entry(1, "2026-11-21T12:00:00Z", reason="Started"),
        entry(2, "2026-11-21T12:10:00Z", reason="EpochCompleted", key="1"),
    )
    assert finetune.status.progress is not None
    progress = finetune.status.progress.replace(step=30, updated_at="2026-11-21T12:11:00Z")
    finetune = finetune.replace(status=finetune.status.replace(progress=progress))
    text = "step,a\n" + "".join(f"{step},1\n" for step in (1, 25, 26))
    found = [event.id.removeprefix("ftevent-tone-") for event in job_events(finetune, rows(text))]
    assert found == ["step-26", "2", "step-25", "step-1", "1"]


STEPS = st.integers(-(10**9), 10**9)


@given(
    key=st.none() | st.text(max_size=8) | st.integers(-5, 10**30).map(str),
    at=st.sampled_from([AT, "2026-11-21T13:00:00Z", "never", "0001-01-01T00:00:00Z"]),
    step=STEPS,
    asked=st.lists(STEPS, min_size=1),
)
def test_the_times_of_any_status_never_decrease(
    key: str | None, at: str, step: int, asked: list[int]
) -> None:
    status = running().status
    assert status.progress is not None
    status = status.replace(
        events=[entry(1, at, reason="EpochCompleted", key=key)],
        progress=status.progress.replace(step=step),
    )
    time_of = step_times(status, 5)
    times = [time_of(one) for one in sorted(asked)]
    assert times == sorted(times)


def test_events_have_ids_of_their_own() -> None:
    shown: list[JsonObject] = fine_tune_events(succeeded())
    assert len({event["id"] for event in shown}) == len(shown) > 5
