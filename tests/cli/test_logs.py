"""`finetune logs` after the pods are deleted: the last lines in the status."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.finetune import FineTune
from finetune_cli.commands.logs import (
    PodSelector,
    container_of,
    is_finished,
    select_pod,
    stored_log_lines,
)
from finetune_cli.terminal.errors import CommandError
from tests.cli.test_checks import a_pod

ATTEMPTS = [
    {"number": 1, "startedAt": "t", "endedAt": "t", "log": ["one a", "one b"], "rank": 3},
    {"number": 2, "startedAt": "t", "endedAt": "t"},
    {"number": 3, "startedAt": "t", "endedAt": "t", "log": ["three a", "three b"]},
]
ERROR = {"code": "RankCrashed", "message": "m", "log": ["error a"]}


def finetune(state: str = "failed", **status: Any) -> FineTune:
    return FineTune.parse(
        {
            "metadata": {"name": "tone"},
            "spec": {"trainingFile": "s3://acme/train.jsonl"},
            "status": {"state": state, **status},
        }
    )


@pytest.mark.parametrize(
    ("status", "wanted", "lines", "words"),
    [
        (
            {"attempts": ATTEMPTS, "error": ERROR},
            PodSelector(),
            ["three a", "three b"],
            "The pods of attempt 3 no longer exist; these are the last lines in the status",
        ),
        (
            {"attempts": ATTEMPTS},
            PodSelector(attempt=1),
            ["one a", "one b"],
            "The pods of attempt 1 no longer exist; these are the last lines of rank 3 in the "
            "status",
        ),
        (
            {"attempts": ATTEMPTS[:2], "error": ERROR},
            PodSelector(),
            ["error a"],
            "The pods of attempt 2 no longer exist; these are the last lines in the status",
        ),
        (
            {"error": ERROR},
            PodSelector(),
            ["error a"],
            "The pods no longer exist; these are the last lines in the status",
        ),
    ],
)
def test_the_lines_of_the_selected_attempt_are_shown(
    status: dict[str, Any], wanted: PodSelector, lines: list[str], words: str
) -> None:
    assert stored_log_lines(finetune(**status), wanted, "") == (words, lines)


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        (
            finetune(attempts=ATTEMPTS, error=ERROR),
            PodSelector(attempt=2),
            "attempt 2 of fine-tune tone .failed. has no pod, and no log lines in the status",
        ),
        (
            finetune(attempts=ATTEMPTS),
            PodSelector(attempt=5),
            "fine-tune tone .failed. has no attempt 5; the last one is 3",
        ),
        (finetune(), PodSelector(attempt=1), "fine-tune tone .failed. has no attempt 1"),
        (
            finetune(attempts=ATTEMPTS, error=ERROR),
            PodSelector(prepare=True),
            "fine-tune tone .failed. has no such pod",
        ),
        (finetune("pending"), PodSelector(), "fine-tune tone .pending. has no such pod"),
    ],
)
def test_missing_log_lines_are_an_error(found: FineTune, wanted: PodSelector, words: str) -> None:
    with pytest.raises(CommandError, match=f"^{words}$") as caught:
        stored_log_lines(found, wanted, " -n team")
    assert caught.value.hint.endswith("get tone -n team` shows its events")


def test_the_prepare_pod_does_not_replace_pods_that_have_ended() -> None:
    pods = [a_pod("p1", "prepare")]
    assert select_pod(pods, PodSelector(), is_early=False) is None
    assert select_pod(pods, PodSelector(), is_early=True) == pods[0]
    assert select_pod(pods, PodSelector(prepare=True), is_early=False) == pods[0]


def test_only_a_running_attempt_is_waited_for() -> None:
    under_way = {"number": 4, "startedAt": "t"}
    found = finetune("running", attempts=[*ATTEMPTS, under_way])
    assert is_finished(found, PodSelector(attempt=1))
    assert not is_finished(found, PodSelector(attempt=4))
    assert not is_finished(found, PodSelector())
    assert is_finished(finetune("failed"), PodSelector())


def test_the_log_is_that_of_the_check_of_the_base_model_if_it_failed() -> None:
    def pod(name: str, state: dict[str, Any]) -> dict[str, Any]:
        return {"status": {"initContainerStatuses": [{"name": name, "state": state}]}}

    assert container_of(pod("base-check", {"terminated": {"exitCode": 65}})) == "base-check"
    assert container_of(pod("base-check", {"terminated": {"exitCode": 0}})) == "main"
    assert container_of(pod("base-check", {"running": {}})) == "main"
    injected = pod("istio-init", {"terminated": {"exitCode": 1}})
    assert container_of(injected) == "istio-init"
    main = {"name": "main", "state": {"terminated": {"exitCode": 1}}}
    injected["status"]["containerStatuses"] = [{"name": "a-proxy", "state": {"running": {}}}, main]
    assert container_of(injected) == "main"
    assert container_of({}) == "main"
