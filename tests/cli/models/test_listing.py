"""The state of the server in `models list` and `models get`."""

from __future__ import annotations

import re

import pytest

from finetune_api.wire import JsonObject
from tests.cli.conftest import Run
from tests.cli.models.api import (
    CRASHED,
    FAILED,
    ID,
    READY,
    SERVED,
    SERVER,
    UNKNOWN,
    a_model,
    lines,
)
from tests.cli.models.conftest import Start


def test_the_list_has_the_states_if_a_model_is_served(run: Run, start: Start) -> None:
    other = a_model("other", "ada:ft-acme-2", serve=SERVED)
    plain = a_model("plain", "ada:ft-acme-3")
    start(a_model(serve=SERVED, status={"serving": READY}), other, plain)
    heading, *rows = lines(run("models", "list").stdout)
    assert heading.split() == ["MODEL", "FROM", "LOSS", "TOKENS", "SERVING", "AGE"]
    start_, end = heading.index("SERVING"), heading.index("AGE")
    found = {row.split()[0]: row[start_:end].strip() for row in rows}
    assert found == {ID: "ready", "ada:ft-acme-2": "pending", "ada:ft-acme-3": ""}


def test_the_list_has_no_such_column_without_a_served_model(run: Run, start: Start) -> None:
    start(a_model(serving={"service": "vllm-tone", "port": 8000}))
    heading, *_ = lines(run("models", "list").stdout)
    assert heading.split() == ["MODEL", "FROM", "LOSS", "TOKENS", "AGE"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (a_model(), []),
        (
            a_model(serve={**SERVED, "minReplicas": 0}, status={"serving": FAILED}),
            [
                "  state      failed since TIME",
                f"  cause      {CRASHED}",
                "  reason     Failed",
                "  requested  the default runtime, 1 pod, asleep after 15 min without requests",
                "  runtime    small (finetune)",
                "  pods       0 of 1 ready",
                f"  Service    {SERVER}, port 8000",
                "  | loading weights",
                "  | no GPU",
            ],
        ),
        (
            a_model(serve=SERVED),
            [
                "  state      pending",
                "  cause      the operator has not responded; `finetune doctor` checks it",
                "  requested  the default runtime, 1 pod",
            ],
        ),
        (
            a_model(status={"serving": UNKNOWN}),
            [
                "  state      failed since TIME",
                "  cause      runtime 'big' is unknown; set it to small",
                "  reason     Failed",
                "  requested  no server (spec.serve is removed)",
                "  runtime    small (finetune)",
                "  pods       0 of 0 ready",
                f"  Service    {SERVER}, port 8000",
            ],
        ),
    ],
    ids=["not-served", "failed", "unanswered", "stopping"],
)
def test_get_shows_the_state_of_the_server(
    run: Run, start: Start, monkeypatch: pytest.MonkeyPatch, model: JsonObject, expected: list[str]
) -> None:
    start(model)
    shown = lines(run("models", "get", "tone").stdout)
    begin = shown.index("Serving") + 1 if "Serving" in shown else len(shown)
    found = [re.sub(r"since [-0-9]{10} [:0-9]{8}$", "since TIME", it) for it in shown[begin:]]
    assert [it for it in found if it.startswith("  ")] == expected
