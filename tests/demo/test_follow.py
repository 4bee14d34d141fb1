"""The output while a FineTune runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from examples.demo.follow import documents, one_line, why_it_failed
from finetune_api.finetune_status import ErrorInfo, FineTuneStatus, Progress

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def test_a_running_finetune_shows_step_loss_and_remaining_time() -> None:
    status = FineTuneStatus(
        state="running",
        stage="training",
        progress=Progress(
            step=120,
            steps=292,
            loss=2.31,
            validation_sequence_accuracy=0.5,
            tokens_per_second=1850.4,
            eta="2026-11-21T12:01:23Z",
        ),
    )
    assert one_line(status, NOW) == (
        "running  training  step 120/292  loss 2.310  val acc 0.50  1,850 tok/s  1 min 23 s left"
    )


def test_a_pending_finetune_shows_the_cause() -> None:
    status = FineTuneStatus(state="pending", stage="starting", message="2 pods are pulling")
    assert one_line(status, NOW) == "pending  starting  2 pods are pulling"
    assert one_line(FineTuneStatus(), NOW) == "new  waiting for the operator"


def test_an_eta_that_has_passed_is_no_negative_time() -> None:
    progress = Progress(step=1, steps=2, eta="2026-11-21T11:59:00Z")
    status = FineTuneStatus(state="running", progress=progress)
    assert one_line(status, NOW).endswith("0 s left")


def test_a_failure_shows_message_hint_and_last_lines() -> None:
    status = FineTuneStatus(
        state="failed",
        error=ErrorInfo(code="InvalidData", message="line 3 is not JSON", hint="fix it", log=["x"]),
    )
    assert why_it_failed("base", status).splitlines() == [
        "FineTune base is failed: line 3 is not JSON",
        "  hint: fix it",
        "  x",
    ]
    cancelled = FineTuneStatus(state="cancelled", message="requested by the user")
    assert why_it_failed("base", cancelled) == "FineTune base is cancelled: requested by the user"


def test_the_output_of_kubectl_is_split_into_objects() -> None:
    objects = [{"a": {"b": "}\n{"}}, {"c": []}, {}]
    text = "".join(json.dumps(value, indent=4) + "\n" for value in objects[:2])
    assert list(documents(text.splitlines(keepends=True))) == objects[:2]
    assert list(documents(['{"half":\n'])) == []
