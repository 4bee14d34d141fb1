"""The flags of `models serve`: what is sent, and which values are refused."""

from __future__ import annotations

import pytest

from finetune_api.wire import JsonObject
from tests.cli.conftest import Run
from tests.cli.models.api import ID, SERVED, a_model, lines
from tests.cli.models.conftest import Start


@pytest.mark.parametrize(
    ("words", "patch"),
    [
        ("", {}),
        ("--runtime small", {"runtime": "small"}),
        ("--replicas 3 --min-replicas 0", {"replicas": 3, "minReplicas": 0}),
        ("--idle 90s", {"idleSeconds": 90}),
        ("--idle 15m", {"idleSeconds": 900}),
        ("--idle 2h", {"idleSeconds": 7200}),
        ("--idle 7d", {"idleSeconds": 604800}),
        ("--gpus 0", {"resources": {"gpus": 0}}),
        (
            "--runtime big --gpus 2 --cpu 500m --memory 32Gi --replicas 1",
            {
                "runtime": "big",
                "replicas": 1,
                "resources": {"gpus": 2, "cpu": "500m", "memory": "32Gi"},
            },
        ),
    ],
)
def test_only_the_given_fields_are_sent(
    run: Run, start: Start, words: str, patch: JsonObject
) -> None:
    api = start(a_model())
    ran = run("models", "serve", "tone", "--no-wait", *words.split())
    assert ran.returncode == 0, ran.stderr
    assert api.patches == [{"spec": {"serve": patch}}]
    assert api.reads == 0
    assert f"See its state: finetune models get {ID}\n" in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--replicas 0", "0 is not in the range 1<=x<=64"),
        ("--replicas 65", "65 is not in the range 1<=x<=64"),
        ("--min-replicas -1", "-1 is not in the range 0<=x<=64"),
        ("--gpus 65", "65 is not in the range 0<=x<=64"),
        ("--idle 15", "'15' must be a number with a unit: s, m, h, or d, such as 15m"),
        ("--idle 1.5h", "must be a number with a unit"),
        ("--idle 59s", "59s must be at least 60 s and at most 7 d"),
        ("--idle 8d", "8d must be at least 60 s and at most 7 d"),
        ("--idle ٣m", "must be a number with a unit"),
        ("--memory 32GB", "'32GB' is not a quantity such as 64Gi or 500M"),
        ("--cpu -1", "'-1' is not a quantity"),
        ("--runtime Big", "'Big' must be the name of a runtime"),
        ("--runtime -", "'-' must be the name of a runtime"),
    ],
)
def test_a_wrong_value_is_refused_before_any_request(run: Run, words: str, message: str) -> None:
    """There is no kubeconfig."""
    ran = run("models", "serve", "tone", *words.split())
    assert ran.returncode == 2
    assert message in ran.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "the default runtime, 1 pod"),
        ("--gpus 1", "the default runtime, 1 pod with 1 GPU"),
        ("--gpus 0 --cpu 2", "the default runtime, 1 pod with no GPU, CPU 2"),
        (
            "--runtime big --replicas 3 --gpus 2 --memory 8Gi --min-replicas 1",
            "runtime 'big', 3 pods, each with 2 GPUs, memory 8Gi, down to 1 pod after 15 min "
            "without requests",
        ),
        ("--replicas 2 --min-replicas 2", "the default runtime, 2 pods"),
    ],
)
def test_what_is_served_is_a_sentence(run: Run, start: Start, words: str, sentence: str) -> None:
    start(a_model())
    ran = run("models", "serve", "tone", "--no-wait", *words.split())
    assert lines(ran.stdout)[0] == f"Serving {ID}: {sentence}."


def test_a_model_that_is_served_like_this_is_not_served_again(run: Run, start: Start) -> None:
    start(a_model(serve=SERVED))
    ran = run("models", "serve", "tone", "--no-wait", "--replicas", "1")
    expected = f"{ID} is already served as requested: the default runtime, 1 pod."
    assert lines(ran.stdout)[0] == expected
