"""The doctor's judgments and the choice of a pod: pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_cli.commands.doctor import cluster_checks as checks
from finetune_cli.commands.doctor.gpu_checks import gpu_findings
from finetune_cli.commands.logs import INDEX, PodSelector, select_pod

CLUSTERS = yaml.safe_load((Path(__file__).parent / "gpu_nodes.yaml").read_text())


def a_node(amount: str | None, **spec: Any) -> JsonObject:
    allocatable = {"cpu": "8"} | ({"nvidia.com/gpu": amount} if amount else {})
    return {"spec": spec, "status": {"allocatable": allocatable}}


@pytest.mark.parametrize(
    ("nodes", "level", "words"),
    [
        (None, "unknown", "may not list nodes"),
        ([], "warning", "(0 nodes)"),
        ([a_node(None), a_node("0")], "warning", "(2 nodes)"),
        (
            [a_node("8"), a_node("8"), a_node("4", unschedulable=True)],
            "ok",
            "16 nvidia.com/gpu on 2 nodes",
        ),
        ([a_node("1")], "ok", "1 nvidia.com/gpu on 1 node"),
    ],
)
def test_gpus_are_counted_where_pods_may_go(
    nodes: list[JsonObject] | None, level: str, words: str
) -> None:
    found = next(gpu_findings(nodes, None))
    assert (found.level, words in found.detail) == (level, True), found
    assert bool(found.remedy) == (level == "warning")


@pytest.mark.parametrize("case", CLUSTERS)
def test_the_gpu_nodes_of_each_kind_of_cluster_are_judged(case: str) -> None:
    cluster = CLUSTERS[case]
    found = list(gpu_findings(cluster["nodes"], cluster.get("runtimeClasses")))
    assert [f"{it.level} {it.check} {it.detail}" for it in found] == cluster["findings"]
    assert all(bool(it.remedy) == (it.level == "warning") for it in found)


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ({"major": "1", "minor": "36", "gitVersion": "v1.36.3"}, "ok"),
        ({"major": "1", "minor": "29+", "gitVersion": "v1.29.1-eks"}, "ok"),
        ({"major": "1", "minor": "28"}, "error"),
        ({}, "error"),
    ],
)
def test_an_old_cluster_is_an_error(version: JsonObject, level: str) -> None:
    assert checks.server(version, "https://host").level == level


def a_deployment(ready: int) -> JsonObject:
    return {"metadata": {"name": "op", "namespace": "ml"}, "status": {"readyReplicas": ready}}


@pytest.mark.parametrize(
    ("deployments", "unseen", "level"),
    [
        ([a_deployment(1)], [], "ok"),
        ([a_deployment(0)], [], "error"),
        ([], [], "warning"),
        (None, [], "unknown"),
        (None, ["tone"], "error"),
        ([a_deployment(1)], ["tone"], "error"),
    ],
)
def test_an_operator_is_judged_by_what_it_does(
    deployments: list[JsonObject] | None, unseen: list[str], level: str
) -> None:
    assert checks.operator(deployments, unseen, "team").level == level


def test_an_operator_that_is_refused_is_not_reported_as_missing() -> None:
    words = 'User "ml:finetune" cannot patch resource "finetunes/status"'
    refused = checks.operator([a_deployment(1)], ["other", "tone"], "team", {"tone": words})
    assert refused.level == "error"
    assert words in refused.detail
    assert "no operator" not in refused.detail
    silent = checks.operator([a_deployment(1)], ["tone"], "ml")
    assert (silent.level, "is ready, but tone has no status" in silent.detail) == ("error", True)
    assert silent.remedy.startswith("kubectl logs deployment/op -n ml")
    elsewhere = checks.operator([a_deployment(1)], ["tone"], "team")
    dead = checks.operator([a_deployment(0)], ["tone"], "ml")
    for missing in (elsewhere, dead):
        assert "no operator serves" in missing.detail


@pytest.mark.parametrize("reason", sorted(names.REFUSAL_REASONS))
def test_a_refused_object_is_quoted(reason: str) -> None:
    def waiting(state: str, reason: str) -> JsonObject:
        status = {"state": state, "reason": reason, "message": "Job j cannot be created: no"}
        return {"metadata": {"name": "tone"}, "status": status}

    (found,) = checks.requests([waiting("pending", reason)], "team")
    is_fatal = reason in {"Forbidden", "WebhookFailed", "RequestRefused"}
    assert found.level == ("error" if is_fatal else "warning")
    assert "Job j cannot be created: no" in found.detail
    others = [waiting("failed", reason), waiting("pending", "Starting"), {"metadata": {"name": ""}}]
    assert not list(checks.requests(others, "team"))


def test_a_missing_permission_is_an_error_only_if_it_is_required() -> None:
    count = len(checks.PERMISSIONS)
    assert checks.permissions([True] * count, "team").level == "ok"
    assert checks.permissions([True] * (count - 1) + [False], "team").level == "warning"
    found = checks.permissions([False] + [True] * (count - 1), "team")
    assert (found.level, found.detail) == (
        "error",
        "you may not create finetunes in namespace team; blocked commands: create",
    )
    assert "--role=finetune-user" in found.remedy


def a_pod(name: str, component: str, attempt: int = 0, index: int = 0) -> JsonObject:
    labels = {
        names.LABEL_COMPONENT: component,
        names.LABEL_ATTEMPT: str(attempt),
        INDEX: str(index),
    }
    return {"metadata": {"name": name, "labels": labels, "creationTimestamp": name}}


PODS = [
    a_pod("p1", "prepare"),
    a_pod("p2", "prepare"),
    a_pod("a1-0", "train", 1, 0),
    a_pod("a1-1", "train", 1, 1),
    a_pod("a2-0", "train", 2, 0),
    a_pod("a10-0", "train", 10, 0),
]


@pytest.mark.parametrize(
    ("pods", "chosen", "wanted"),
    [
        (PODS, {}, "a10-0"),
        (PODS, {"attempt": 1}, "a1-0"),
        (PODS, {"attempt": 1, "node": 1}, "a1-1"),
        (PODS, {"prepare": True}, "p2"),
        (PODS, {"node": 7}, None),
        (PODS, {"attempt": 3}, None),
        (PODS[:2], {}, "p2"),
        (PODS[:2], {"node": 1}, None),
        ([], {}, None),
    ],
)
def test_the_newest_pod_that_is_meant_is_chosen(
    pods: list[JsonObject], chosen: JsonObject, wanted: str | None
) -> None:
    found = select_pod(pods, PodSelector(**chosen), is_early=True)
    assert (found and found["metadata"]["name"]) == wanted
