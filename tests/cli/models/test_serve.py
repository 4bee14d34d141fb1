"""`models serve` until the model is ready, has failed, or is gone; the test plays the operator."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.wire import JsonObject
from tests.cli.conftest import Run
from tests.cli.models.api import (
    ASLEEP,
    BUSY,
    DELETED,
    FAILED,
    ID,
    LOADING,
    READY,
    SERVED,
    SERVER,
    UNKNOWN,
    a_model,
    lines,
    serving,
)
from tests.cli.models.conftest import Start, Time


def test_other_fields_of_a_served_model_stay(run: Run, start: Start) -> None:
    before = {**SERVED, "runtime": "big", "resources": {"gpus": 4, "memory": "8Gi"}}
    api = start(a_model(serve=before))
    ran = run("models", "serve", "tone", "--gpus", "2", "--no-wait")
    resources = {"gpus": 2, "memory": "8Gi"}
    assert api.models["tone"]["spec"]["serve"] == {**before, "resources": resources}
    expected = f"Changed the server of {ID}: runtime 'big', 1 pod with 2 GPUs, memory 8Gi."
    assert lines(ran.stdout)[0] == expected


@pytest.mark.parametrize("name", ["tone", ID])
def test_it_waits_until_the_model_is_ready_and_shows_each_sentence_once(
    run: Run, start: Start, name: str
) -> None:
    pulling = serving("loading", "pulling the image")
    api = start(a_model(), steps=[None, pulling, pulling, LOADING, LOADING, READY])
    ran = run("models", "serve", name, "-n", "ml")
    assert ran.returncode == 0, ran.stderr
    assert api.reads == 6
    assert lines(ran.stdout) == [
        f"Serving {ID}: the default runtime, 1 pod.",
        "Waiting until it is ready. Ctrl-C stops waiting, not the server.",
        "waiting for the operator",
        "loading  pulling the image",
        "loading  1 pod is loading the model",
        "ready  1 of 1 pod answers requests",
        f"In the cluster:   http://{SERVER}.ml.svc:8000/v1",
        f"Model:            {ID}",
        f"On this machine:  kubectl port-forward service/{SERVER} 8000:8000 -n ml",
        "                  and then http://127.0.0.1:8000/v1",
        f"Stop it:          finetune models stop {ID} -n ml",
    ]
    assert ran.stderr == ""


def test_the_address_does_not_come_from_the_status(run: Run, start: Start) -> None:
    start(a_model(), steps=[{**READY, "service": "of-another-user"}])
    ran = run("models", "serve", "tone")
    assert f"http://{SERVER}.ml.svc:8000/v1" in ran.stdout
    assert "of-another-user" not in ran.stdout


def test_a_model_that_can_sleep_says_which_requests_count(run: Run, start: Start) -> None:
    start(a_model(), steps=[READY])
    ran = run("models", "serve", "tone", "--min-replicas", "0", "--idle", "1h")
    assert lines(ran.stdout)[0].endswith("1 pod, asleep after 60 min without requests.")
    idle = "asleep after 60 min without requests; only those through the gateway count"
    assert f"Idle:             {idle}\n" in ran.stdout


def test_a_model_that_sleeps_already_ends_the_wait(run: Run, start: Start) -> None:
    asleep = {**SERVED, "minReplicas": 0}
    start(a_model(serve=asleep, status={"serving": ASLEEP}), steps=[ASLEEP])
    ran = run("models", "serve", "tone")
    assert ran.returncode == 0, ran.stderr
    assert f"asleep  {ASLEEP['message']}\n" in ran.stdout
    assert "port-forward" not in ran.stdout


@pytest.mark.parametrize(
    ("failed", "remains"),
    [
        (FAILED, "its server remains, and Kubernetes tries again"),
        (UNKNOWN, "spec.serve remains, and the operator tries again"),
    ],
)
def test_a_failure_is_an_error_with_the_last_lines_of_the_log(
    run: Run, start: Start, failed: JsonObject, remains: str
) -> None:
    api = start(a_model(), steps=[LOADING, failed])
    ran = run("models", "serve", "tone")
    assert ran.returncode == 1
    assert [it for it in lines(ran.stdout) if it.startswith("  | ")] == [
        f"  | {line}" for line in failed.get("log", [])
    ]
    error, hint = lines(ran.stderr)
    assert error == f"error: {ID} is not served: {failed['message']}"
    assert hint.startswith(f"hint: {remains}, so the model is ready by itself")
    assert f"`finetune models stop {ID}` stops it" in hint
    assert len(api.patches) == 1  # it stays served


def test_without_an_operator_that_serves_models_it_ends(
    run: Run, start: Start, clock: Time
) -> None:
    start(a_model(), steps=[None])
    ran = run("models", "serve", "tone", "-n", "ml")
    assert ran.returncode == 1
    assert clock.seconds == 20
    assert f"error: the operator does not serve {ID}" in ran.stderr
    assert "serving.enabled=true; `finetune doctor -n ml`" in ran.stderr
    assert lines(ran.stdout).count("waiting for the operator") == 1


def test_a_lost_connection_is_retried_and_does_not_count_as_silence(
    run: Run, start: Start, clock: Time
) -> None:
    start(a_model(), steps=[None] * 9 + [BUSY] * 3 + [None] * 9 + [READY])
    ran = run("models", "serve", "tone")
    assert ran.returncode == 0, ran.stderr
    assert clock.seconds > 20
    shown = lines(ran.stdout)
    assert shown.count("reconnecting: the API server answers 503") == 1
    assert shown.count("reconnected") == 1


OLD_FAILURE = {"serve": SERVED, "status": {"serving": FAILED}}
OLD_SUCCESS = {"serve": SERVED, "status": {"serving": READY}}


@pytest.mark.parametrize(
    ("model", "words", "steps", "code", "unseen"),
    [
        # the failure of the former runtime is not that of the new one
        (OLD_FAILURE, "--runtime small", [FAILED, FAILED, LOADING, READY], 0, "failed"),
        # the former pod answers until it is replaced
        (OLD_SUCCESS, "--memory 8Gi", [READY, READY, LOADING, FAILED], 1, "ready"),
        (OLD_SUCCESS, "--replicas 2", [READY], 0, "waiting"),
        (OLD_FAILURE, "", [FAILED], 1, "waiting"),
        (OLD_FAILURE, "--replicas 1", [FAILED], 1, "waiting"),  # it has one already
    ],
    ids=["failed-before", "ready-before", "more-pods", "same", "same-number"],
)
def test_a_state_from_before_the_change_does_not_count(
    run: Run,
    start: Start,
    model: JsonObject,
    words: str,
    steps: list[JsonObject],
    code: int,
    unseen: str,
) -> None:
    start(a_model(**model), steps=steps)
    ran = run("models", "serve", "tone", *words.split())
    assert ran.returncode == code, ran.stderr
    assert not [it for it in lines(ran.stdout) if it.split()[0] == unseen]


def test_a_failure_that_outlasts_the_change_counts(run: Run, start: Start, clock: Time) -> None:
    start(a_model(**OLD_FAILURE), steps=[FAILED])
    ran = run("models", "serve", "tone", "--runtime", "small")
    assert ran.returncode == 1
    assert clock.seconds == 20
    assert "no GPU; Kubernetes tries again" in ran.stderr


def test_ctrl_c_stops_waiting_and_not_the_server(run: Run, start: Start, clock: Time) -> None:
    api = start(a_model(), steps=[LOADING])
    clock.interrupt_at = 2
    ran = run("models", "serve", "tone", "-n", "ml")
    assert ran.returncode == 130
    assert lines(ran.stderr)[1:] == [
        f"Stopped waiting. The operator continues to serve {ID}.",
        f"To wait again: finetune models serve {ID} -n ml",
        f"To stop it:    finetune models stop {ID} -n ml",
    ]
    assert api.models["tone"]["spec"]["serve"] == SERVED


def test_a_model_that_is_deleted_meanwhile_is_an_error(run: Run, start: Start) -> None:
    start(a_model(), steps=[LOADING, DELETED])
    ran = run("models", "serve", "tone")
    assert (ran.returncode, f"error: {ID} was deleted" in ran.stderr) == (1, True)


def test_a_model_that_another_user_stops_is_an_error(run: Run, start: Start, clock: Time) -> None:
    api = start(a_model(), steps=[LOADING])
    pause = clock.pause

    def remove(seconds: float) -> None:
        pause(seconds)
        api.models["tone"]["spec"].pop("serve", None)

    clock.pause = remove  # type: ignore[method-assign]
    ran = run("models", "serve", "tone")
    assert (ran.returncode, "another user removed spec.serve" in ran.stderr) == (1, True)


@pytest.mark.parametrize(
    ("model", "error", "hint"),
    [
        (
            a_model(serving={"service": "vllm-tone", "port": 8000}),
            f"{ID} already has a server of your own: its spec.serving names the Service vllm-tone",
            'kubectl patch model tone --type=merge -p \'{"spec":{"serving":null}}\' -n ml',
        ),
        (
            {
                **a_model(),
                "metadata": {
                    **a_model()["metadata"],
                    "deletionTimestamp": "2026-11-30T12:00:00Z",
                },
            },
            f"{ID} is being deleted, so it cannot be served",
            "",
        ),
    ],
    ids=["own-server", "deleted"],
)
def test_a_model_that_cannot_be_served_is_not_changed(
    run: Run, start: Start, model: JsonObject, error: str, hint: str
) -> None:
    api = start(model)
    ran = run("models", "serve", "tone", "-n", "ml")
    assert ran.returncode == 1
    assert f"error: {error}\n" in ran.stderr
    assert hint in ran.stderr
    assert api.patches == []


def refusal(code: int, **more: Any) -> tuple[int, JsonObject]:
    message = 'models.finetune.dev "tone" is forbidden: User "me" cannot patch resource "models"'
    return code, {"kind": "Status", "message": message, **more}


RULE = "serve.minReplicas may be at most serve.replicas"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusal(403), "hint: only owners may change Models"),
        (refusal(403), "chart's Role finetune-owner"),
        (refusal(422, details={"causes": [{"field": "<nil>", "message": RULE}]}), f"error: {RULE}"),
    ],
)
def test_a_refusal_of_the_api_server_is_an_error(
    run: Run, start: Start, answer: tuple[int, JsonObject], words: str
) -> None:
    api = start(a_model())
    api.refusal = answer
    ran = run("models", "serve", "tone", "--min-replicas", "2")
    assert (ran.returncode, words in ran.stderr) == (1, True), ran.stderr
    assert api.reads == 0


def test_a_cluster_whose_models_have_no_such_field_is_an_error(run: Run, start: Start) -> None:
    """An API server removes a field that its CRD does not know, and reports success."""
    start(a_model()).prunes = True
    ran = run("models", "serve", "tone")
    assert (ran.returncode, "have no field spec.serve" in ran.stderr) == (1, True)
