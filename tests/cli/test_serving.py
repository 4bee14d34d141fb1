"""The server of a Model: `spec.serving` and `spec.serve` on a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.support.kubectl import Kubectl, RefusedError

pytestmark = pytest.mark.integration

NAME = "ada-ft-acme-tone-2026-11-21-12-00-00"
MODEL = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "Model",
    "metadata": {"name": NAME},
    "spec": {
        "id": "ada:ft-acme:tone-2026-11-21-12-00-00",
        "uri": "s3://acme/out/ml/tone-11111111/model",
        "base": "ada",
        "pretrainingLearningRate": 0.001,
        "contextLength": 256,
    },
}


def patch(team: Kubectl, **spec: Any) -> None:
    team("patch", "model", NAME, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_server_is_added_replaced_and_removed_after_the_training(
    at_team: Run, team: Kubectl
) -> None:
    team.apply(MODEL)
    assert "served by" not in at_team("models", "get", NAME).stdout
    patch(team, serving={"service": "vllm-tone", "port": 8000})
    assert "Service vllm-tone, port 8000\n" in at_team("models", "get", NAME).stdout
    patch(team, serving={"service": "vllm-ada", "name": "tone"})
    assert "Service vllm-ada, port 8000 as tone\n" in at_team("models", "get", NAME).stdout
    patch(team, serving=None)
    assert "serving" not in team.get("model", NAME)["spec"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"serving": {"service": "vllm-tone"}}, "spec.serving.port: Required value"),
        ({"serving": {"service": "vllm.other", "port": 8000}}, "spec.serving.service"),
        ({"serving": {"service": "vllm-tone", "port": 0}}, "greater than or equal to 1"),
        ({"serving": {"service": "vllm-tone", "port": 8000, "name": "n" * 257}}, "Too long"),
        ({"base": "curie"}, "cannot be changed once created"),
        ({"parent": "curie"}, "cannot be"),
    ],
)
def test_no_other_server_and_no_other_field(team: Kubectl, spec: Any, words: str) -> None:
    team.apply(MODEL)
    with pytest.raises(RefusedError) as refused:
        patch(team, **spec)
    assert words in str(refused.value)


def test_the_operator_is_asked_to_serve_a_model_and_to_stop(at_team: Run, team: Kubectl) -> None:
    team.apply(MODEL)
    assert at_team("models", "serve", NAME, "--no-wait").returncode == 0
    assert team.get("model", NAME)["spec"]["serve"] == {"replicas": 1, "idleSeconds": 900}
    changed = at_team("models", "serve", NAME, "--gpus", "2", "--idle", "1h", "--no-wait")
    assert changed.returncode == 0, changed.stderr
    expected = {"replicas": 1, "idleSeconds": 3600, "resources": {"gpus": 2}}
    assert team.get("model", NAME)["spec"]["serve"] == expected
    refused = at_team("models", "serve", NAME, "--min-replicas", "2", "--no-wait")
    assert (refused.returncode, "may be at most serve.replicas" in refused.stderr) == (1, True)
    assert at_team("models", "stop", NAME).returncode == 0
    assert "serve" not in team.get("model", NAME)["spec"]
