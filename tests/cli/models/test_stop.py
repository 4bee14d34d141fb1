"""`models stop`: the field is removed, and the operator removes the server."""

from __future__ import annotations

import pytest

from finetune_api.wire import JsonObject
from tests.cli.conftest import Run
from tests.cli.models.api import (
    DELETED,
    ID,
    READY,
    SERVED,
    SERVER,
    a_model,
    lines,
)
from tests.cli.models.conftest import Start, Time


def test_stop_removes_the_field_and_waits_for_the_operator(
    run: Run, start: Start, clock: Time
) -> None:
    api = start(a_model(serve=SERVED, status={"serving": READY}), steps=[READY, READY, None])
    ran = run("models", "stop", "tone")
    assert ran.returncode == 0, ran.stderr
    assert api.patches == [{"spec": {"serve": None}}]
    assert "serve" not in api.models["tone"]["spec"]
    assert api.reads == 3
    end = f"Stopped serving {ID}: Deployment and Service {SERVER} are removed."
    assert lines(ran.stdout) == ["waiting for the operator", end]


def test_stop_of_a_model_that_the_operator_never_served(run: Run, start: Start) -> None:
    api = start(a_model(serve=SERVED), steps=[None])
    ran = run("models", "stop", "tone")
    assert (ran.returncode, api.reads) == (0, 1)
    assert api.patches == [{"spec": {"serve": None}}]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (a_model(), f"{ID} is not served."),
        (
            a_model(serving={"service": "vllm-tone", "port": 8000}),
            f"{ID} is not served by the operator. Its spec.serving names the Service vllm-tone, "
            "which is your own.",
        ),
    ],
    ids=["none", "own-server"],
)
def test_stop_without_a_server_changes_nothing(
    run: Run, start: Start, model: JsonObject, sentence: str
) -> None:
    api = start(model)
    ran = run("models", "stop", ID)
    assert (ran.returncode, lines(ran.stdout)) == (0, [sentence])
    assert (api.patches, api.reads) == ([], 0)


def test_stop_again_waits_without_another_patch(run: Run, start: Start) -> None:
    api = start(a_model(status={"serving": READY}), steps=[READY, None])
    api.plays = True
    ran = run("models", "stop", ID)  # a list finds it, which takes no step
    assert ran.returncode == 0, ran.stderr
    assert api.patches == []
    assert "Stopped serving" in ran.stdout


def test_a_server_that_the_operator_does_not_remove_is_an_error(
    run: Run, start: Start, clock: Time
) -> None:
    start(a_model(serve=SERVED, status={"serving": READY}), steps=[READY])
    ran = run("models", "stop", "tone", "-n", "ml")
    assert ran.returncode == 1
    assert clock.seconds == 20
    assert f"but the operator has not removed the server {SERVER} yet" in ran.stderr
    assert f"kubectl delete deployment,service,lease {SERVER} -n ml" in ran.stderr


def test_a_model_that_is_deleted_is_stopped(run: Run, start: Start) -> None:
    start(a_model(serve=SERVED, status={"serving": READY}), steps=[READY, DELETED])
    assert run("models", "stop", "tone").returncode == 0


def test_ctrl_c_does_not_undo_a_stop(run: Run, start: Start, clock: Time) -> None:
    api = start(a_model(serve=SERVED, status={"serving": READY}), steps=[READY])
    clock.interrupt_at = 1
    ran = run("models", "stop", "tone")
    assert ran.returncode == 130
    assert ran.stderr == f"Stopped waiting. The operator removes the server of {ID}.\n"
    assert "serve" not in api.models["tone"]["spec"]
