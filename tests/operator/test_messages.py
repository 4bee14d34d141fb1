"""The golden file of the message catalog: every text, with sample arguments.

`--update-golden` writes it. A message without a sample fails the test.
"""

import inspect
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import END_REASONS, PENDING_REASONS
from finetune_api.outcome import EpochMetrics
from finetune_operator import messages
from finetune_operator.messages import Disruption, Event, StatusMessage

GOLDEN = Path(__file__).with_name("messages.yaml")
ERROR = ErrorInfo(code="RankCrashed", message="rank 1 was killed by signal 9 (SIGKILL)")
EPOCH = EpochMetrics(epoch=1, step=25, training_loss=1.2, validation_loss=1.5, learning_rate=4e-5)
BEFORE = EpochMetrics(epoch=0, step=0, validation_loss=2.9, validation_sequence_accuracy=0.5)
MODEL, URI = "ada:ft-acme:tone-2026-11-21-12-00-00", "s3://acme/out/team/tone-11111111/model"
POD, NODE = "ft-tone-11111111-a1-0", "node-7"
TAKEN = f"Model {MODEL.replace(':', '-')} of FineTune other"
REFUSED = "Job ft-tone-11111111-prepare cannot be created"
COMMAND = f"kubectl get model {MODEL.replace(':', '-')} -n team -o yaml"

DELETION = messages.job_was_deleted(1, None)
LOST = messages.result_lost(messages.PREPARE_JOB, messages.PODS_REMOVED)
GANG = messages.gang_released(1, 2, "other")
SAMPLES: dict[str, list[tuple[Any, ...]]] = {
    "pods_answer": [(2, 2, None), (1, 2, "1 of 2 pods cannot be scheduled: no GPU is free")],
    "pods_load": [(1,), (2,)],
    "sleeps": [(900, None), (7200, "no image"), (61, None)],
    "download_failed": [(ERROR,), (ERROR.replace(hint="check the key"),)],
    "download_crashed": [(1, ""), (1, "no route to host")],
    "server_crashed": [(1, ""), (134, "CUDA error: no kernel image")],
    "server_out_of_memory": [(None,), ("16Gi",)],
    "waits_in_vain": [("ImagePull", "1 of 1 pod cannot pull the image: no such tag")],
    "unknown_serving_runtime": [("tpu", "cpu, vllm")],
    "serving_name_taken": [("Service mdl-ada-11111111-serve",)],
    "serving_refused": [("QuotaExceeded", "Deployment x cannot be created: no quota")],
    "created": [("tone",)],
    "advice": [("22 examples are duplicates of others",)],
    "enqueued": [("gpus",)],
    "queue_position": [(1, 2)],
    "suspended": [(1,)],
    "resumed": [(2,)],
    "pods_released": [(1, GANG.message)],
    "base_model_loaded": [("ada",)],
    "restarted": [(2, 25, ERROR.message), (2, None, ERROR.message)],
    "base_model_measured": [(BEFORE,)],
    "epoch_completed": [(EPOCH, 4), (EpochMetrics(epoch=2, step=50), 4)],
    "model_uploaded": [(MODEL,)],
    "results_uploaded": [("s3://acme/out/team/tone-11111111/results.csv",)],
    "adopted": [(MODEL, "11111111-2222-3333-4444-555555555555", URI)],
    "not_adopted": [(MODEL.replace(":", "-"),)],
    "diverged": [(2.0123, 3.1)],
    "status_refused": [('User "ml:finetune" cannot patch resource "finetunes/status"',)],
    "failed": [(ERROR,)],
    "format_metrics": [(EPOCH,)],
    "checking_data_again": [(ERROR,)],
    "pods_starting": [(1,), (2,)],
    "pods_training": [(1,), (2,)],
    "attempt_starts": [
        (2, "2026-11-21T12:00:10Z", ERROR.message, None),
        (2, None, "rank 0 ran out of GPU memory", messages.HALF_MICRO_BATCH),
        (2, None, "rank 0 ran out of host memory", messages.larger_request("2880Mi")),
    ],
    "other_plan": [(3, "optimizer")],
    "larger_request": [("2880Mi",)],
    "suspended_by_kueue": [
        (remedy, cause)
        for remedy in (
            *(messages.QUEUE_OF_TRAINING, messages.QUEUE_OF_CHECKS, messages.QUEUE_OF_DELETION),
        )
        for cause in ("LocalQueue  doesn't exist", None)
    ],
    "perhaps_suspended_by_kueue": [(messages.QUEUE_OF_CHECKS,)],
    "queued": [("gpus", 2, "insufficient unused quota"), ("gpus", None, None)],
    "pods_refused": [
        (1, 2, "exceeded quota: gpus", True),
        (2, 2, "violates PodSecurity", False),
    ],
    "unschedulable": [(1, 2, messages.nodes_lack("3", "nvidia.com/gpu"))],
    "nodes_lack": [("3", "nvidia.com/gpu")],
    "image_not_pulled": [(2, 2, "", "registry says 401"), (1, 2, "proxy", "registry says 401")],
    "container_not_started": [
        (1, 1, "", 'secret "s" not found'),
        (1, 1, "proxy", 'secret "s" not found'),
    ],
    "container_crashes": [(1, 2, "vault-agent-init", "exit code 1: no such host")],
    "pods_initializing": [(1, 1, "vault-agent-init"), (2, 2, "vault-agent-init")],
    "certificates_not_mounted": [
        (
            1,
            1,
            'MountVolume.SetUp failed for volume "finetune-certificates": configmap "ca" not found',
        )
    ],
    "volume_not_mounted": [(1, 2, 'MountVolume.SetUp failed for volume "model-cache"')],
    "sandbox_not_created": [(2, 2, 'Failed to create pod sandbox: plugin "cni" failed')],
    "injected_failed": [("vault-agent-init", POD, 1, "Error: no such host")],
    "model_ready": [(MODEL,)],
    "model_adopted": [(MODEL, "11111111-2222-3333-4444-555555555555", URI)],
    "dry_run_passed": [(100, 5000, 50, 4, messages.memory_estimate(0.5, 1, None, None))],
    "memory_estimate": [(0.5, 1, None, None), (40.5, 3, "optimizer", 130.25)],
    "published_before": [(1,)],
    "unknown_runtime": [("tpu", "nvidia, cpu")],
    "runtime_without_gpus": [("cpu",)],
    "key_refused": [("podLabels", "'job-name' is set by the operator or by Kubernetes")],
    "key_not_allowed": [
        ("podLabels", "acme.com/team", "pods.allowedLabelPrefixes", None),
        ("podLabels", "acme.com/team", "pods.allowedLabelPrefixes", "team, example.com/"),
    ],
    "one_training_file": [("registry/prepare:1",)],
    "unknown_model": [("gpt5", "team", "ada, curie")],
    "model_going": [("ada-ft-acme-tone-2026",)],
    "files_job_refused": [("Job mdl-ada-11111111-delete cannot be created: exceeded quota",)],
    "files_in_use": [("next",)],
    "files_kept_in_namespace": [("team", URI)],
    "files_kept": [(messages.owner_missing(URI), URI)],
    "delete_command": [(URI,)],
    "owner_missing": [(URI,)],
    "address_of_other": [(URI, "<output>/team/other-22222222/model")],
    "files_shared": [(URI, "copy")],
    "files_job_taken": [("Job mdl-ada-11111111-delete",)],
    "pending_too_long": [(600, "1 of 2 pods cannot be scheduled: 0/3 nodes have cpu free")],
    "training_too_long": [(3600,)],
    "output_too_long": [(600, 512)],
    "model_name_too_long": [(260, 253)],
    "job_took_too_long": [("prepare", 14400), ("lookup", None)],
    "stalled": [(31.4, 10, 30)],
    "job_was_deleted": [(1, "2026-11-21T12:00:00Z"), (1, None)],
    "looking_up": [(DELETION,)],
    "looking_up_again": [(DELETION, LOST)],
    "lookup_failed": [(DELETION, "the prepare image is of an earlier version")],
    "nothing_published": [(DELETION,)],
    "result_lost": [
        (messages.PREPARE_JOB, messages.WORD_UNREADABLE),
        (messages.attempt_in_words(2), messages.PODS_REMOVED),
    ],
    "results_lost_in_a_row": [(3,)],
    "attempt_in_words": [(2,)],
    "checked_again": [("uid-1", LOST)],
    "looked_up_again": [("uid-2", LOST)],
    "name_taken": [("Job ft-tone-11111111-a1", "kubectl get job ft-tone-11111111-a1 -n team")],
    "model_name_taken": [(MODEL, URI, TAKEN, COMMAND)],
    "restarts_spent": [(1,), (3,)],
    "attempts_spent": [(200,)],
    "smaller_batch_failed": [(0.0625,)],
    "larger_request_failed": [("449280Mi",)],
    "hint_for_limit": [("64Gi", 130.25)],
    "hint_for_request": [("133376Mi",)],
    "rank_ended": [(1, 1, POD), (1, 139, POD), (1, 160, POD)],
    "pod_out_of_memory": [(POD, "150Mi", "resources.memory"), (POD, None, "resources.memory")],
    "pod_deleted": [(POD,)],
    "job_failed": [("backoff limit", False), (None, False), ("a pod was drained", True)],
    "gang_released": [(1, 2, "other"), (3, 4, None)],
    "queue_withdrew": [("gpus", "Preempted to accommodate another workload"), ("gpus", None)],
    "pod_disrupted": [(item, POD, NODE, "the reason") for item in Disruption]
    + [(Disruption.EVICTED, POD, None, None)],
    "cannot": [("create", "Job", "ft-tone-11111111-a1"), ("list", "jobs", "")],
    "model_not_registered": [(MODEL, URI, "Model m cannot be created")],
    "quota_exceeded": [(REFUSED, "exceeded quota: jobs, requested: count/jobs.batch=1")],
    "policy_denied": [(REFUSED, "ValidatingAdmissionPolicy 'labels' denied request: no label")],
    "webhook_failed": [(REFUSED, 'failed calling webhook "hook.example.com": no endpoints')],
    "field_refused": [(REFUSED, "must be an integer", "resources.gpuResource")],
    "object_refused": [(REFUSED, "must be an integer")],
    "permission_missing": [(REFUSED, 'User "ml:finetune" cannot create resource "jobs"')],
    "namespace_ends": [(REFUSED, "unable to create new content in namespace team")],
    "request_refused": [(REFUSED, "etcdserver: request is too large")],
    "files_not_deleted": [("S3 denies access to s3://acme/out",)],
}
TYPES = (Event, StatusMessage, ErrorInfo)


def catalog() -> Iterator[tuple[str, Any]]:
    """(name, function or constant)."""
    for name, item in vars(messages).items():
        is_function = inspect.isfunction(item) and item.__module__.startswith(messages.__name__)
        is_text = isinstance(item, str) and " " in item
        if not name.startswith("_") and (is_function or is_text or isinstance(item, TYPES)):
            yield name, item


def call(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Bind the arguments in order, keyword-only ones included."""
    return function(**dict(zip(inspect.signature(function).parameters, arguments, strict=True)))


def plain(value: Any) -> Any:
    if isinstance(value, ErrorInfo):
        return value.to_dict()
    if isinstance(value, Event | StatusMessage):
        return {key: item for key, item in asdict(value).items() if item is not None}
    return value


def rendered() -> dict[str, list[Any]]:
    return {
        name: [call(item, sample) for sample in SAMPLES[name]] if callable(item) else [item]
        for name, item in catalog()
        if name != "__doc__"
    }


def test_each_message_has_a_sample() -> None:
    functions = {name for name, item in catalog() if callable(item) and not inspect.isclass(item)}
    assert functions == set(SAMPLES)


def test_the_messages_are_the_golden_ones(request: pytest.FixtureRequest) -> None:
    values = {name: [plain(item) for item in items] for name, items in rendered().items()}
    text = yaml.safe_dump(values, sort_keys=False, width=1000, allow_unicode=True)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_each_error_has_a_known_code_and_a_hint() -> None:
    errors = [item for items in rendered().values() for item in items]
    for error in (item for item in errors if isinstance(item, ErrorInfo)):
        assert error.code in END_REASONS - PENDING_REASONS, error
        assert error.hint, error


def test_the_disruptions_have_different_messages() -> None:
    assert issubclass(Disruption, Enum)
    assert len({item.value[1] for item in Disruption}) == len(Disruption.__members__)


def test_no_message_is_longer_than_the_status_allows() -> None:
    long = "x" * 5000
    for error in (
        messages.pending_too_long(1, long),
        messages.name_taken(long, "true"),
        messages.job_failed(long, disrupted=False),
    ):
        assert ErrorInfo.model_validate_json(error.to_json()) == error
