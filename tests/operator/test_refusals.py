"""Answers of a real API server (Kubernetes 1.36) that refuse a request, and their explanations."""

from typing import Any

import pytest

from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import REFUSAL_REASONS, Reason
from finetune_operator import messages
from finetune_operator.core.refusals import Cause, Refusal, explain_refusal, keep_known
from finetune_operator.kube.client import _to_error
from tests.support.objects import a_finetune

POD = "spec.template.spec."
GPU = f"{POD}containers[0].resources.limits"
POLICY = "ValidatingAdmissionPolicy 'deny' with binding 'deny' denied request: no label"
DEAD = (
    'failed calling webhook "hook.example.com": failed to call webhook: '
    'Post "https://127.0.0.1:1/x?timeout=2s": dial tcp 127.0.0.1:1: connect: connection refused'
)
QUOTA = (
    "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=0, "
    "limited: count/jobs.batch=0"
)
USER = 'User "system:serviceaccount:t:op" cannot create resource "jobs" in API group "batch"'
ENDING = "unable to create new content in namespace t because it is being terminated"
HOOK = 'admission webhook "deny.example.com" denied the request'


def refusal(status: int, message: str, *causes: Cause, **fields: Any) -> Refusal:
    values = {"verb": "create", "kind": "Job", "name": "j"} | fields
    return Refusal(status=status, message=message, causes=causes, **values)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (refusal(403, f'jobs.batch "j" is forbidden: {QUOTA}'), Reason.QUOTA_EXCEEDED),
        (
            refusal(403, 'jobs.batch "j" is forbidden: status unknown for quota: q, resources: x'),
            Reason.QUOTA_EXCEEDED,
        ),
        (
            refusal(403, 'jobs.batch "j" is forbidden: insufficient quota to consume: x'),
            Reason.QUOTA_EXCEEDED,
        ),
        *[
            (refusal(status, f'jobs.batch "j" is forbidden: {POLICY}'), Reason.POLICY_DENIED)
            for status in (403, 413, 422)
        ],
        *[
            (refusal(status, f"{HOOK}: exceeded quota: none of ours"), Reason.POLICY_DENIED)
            for status in (400, 403, 404, 409, 422, 429, 500)
        ],
        (refusal(400, f"{HOOK} without explanation"), Reason.POLICY_DENIED),
        (refusal(403, 'jobs.batch "j" is forbidden: some plugin says no'), Reason.POLICY_DENIED),
        (refusal(500, f"Internal error occurred: {DEAD}"), Reason.WEBHOOK_FAILED),
        (refusal(403, f"jobs.batch is forbidden: {USER}"), Reason.FORBIDDEN),
        (refusal(403, f'jobs.batch "j" is forbidden: {USER}', verb="delete"), Reason.FORBIDDEN),
        (
            refusal(
                *(403, f'jobs.batch "j" is forbidden: {ENDING}'),
                Cause("NamespaceTerminating", "metadata.namespace", "namespace t is being deleted"),
            ),
            Reason.FORBIDDEN,
        ),
        (refusal(403, "<html>a proxy says no</html>"), Reason.FORBIDDEN),
        (refusal(400, "Job in version v1 cannot be handled as a Job"), Reason.INVALID_SPEC),
        (refusal(422, "Job.batch j is invalid: nobody knows why"), Reason.INVALID_SPEC),
        (refusal(404, "404 page not found\n"), Reason.REQUEST_REFUSED),
        (refusal(500, "etcdserver: mvcc: database space exceeded"), Reason.REQUEST_REFUSED),
        (refusal(418, ""), Reason.REQUEST_REFUSED),
        (refusal(0, "POST /apis/batch/v1: TimeoutError"), Reason.REQUEST_REFUSED),
    ],
)
def test_each_answer_has_a_reason_and_is_quoted(found: Refusal, reason: str) -> None:
    message = explain_refusal(found, a_finetune())
    assert message.reason == reason
    assert reason in REFUSAL_REASONS
    words = found.message.strip().split(": ")[-1] or "HTTP status 418"
    assert words in message.message
    assert f"Job j cannot be {'deleted' if found.verb == 'delete' else 'created'}" in (
        message.message
    )


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (f"{POD}tolerations[1].operator", "scheduling.tolerations[1].operator"),
        (f"{POD}nodeSelector", "scheduling.nodeSelector"),
        (f"{POD}priorityClassName", "priorityClassName"),
        (f"{GPU}[gpu]", "resources.gpuResource"),
        (f"{GPU}[memory]", "resources.memory"),
        (f"{GPU}[ephemeral-storage]", None),  # not set by the user
        (f"{GPU}[rdma/hca]", None),  # of the chart's runtime
        ("metadata.labels", "queueName"),
        ("spec.completions", "resources.nodes"),
        (f"{POD}runtimeClassName", None),
        ("", None),
    ],
)
def test_the_field_of_the_spec_is_named(field: str, param: str | None) -> None:
    resources = {"nodes": 2, "gpusPerNode": 1, "gpuResource": "gpu", "memory": "1Gi"}
    found = refusal(422, 'Job.batch "j" is invalid: no', Cause("FieldValueInvalid", field, "no"))
    expected = (
        messages.field_refused("Job j cannot be created", "no", param)
        if param
        else messages.object_refused("Job j cannot be created", "no")
    )
    assert explain_refusal(found, a_finetune(resources=resources)) == expected


def test_only_an_unexplained_delay_waits_for_its_repetition() -> None:
    statuses = (0, 401, 409, 429, 500, 503, 504)
    assert all(refusal(status, "try again").is_transient for status in statuses)
    assert not any(refusal(status, f"{HOOK}: no").is_transient for status in statuses)
    assert not refusal(500, f"Internal error occurred: {DEAD}").is_transient
    assert not any(refusal(status, "no").is_transient for status in (400, 403, 404, 413, 422))


def test_an_address_that_differs_changes_no_message() -> None:
    first = explain_refusal(refusal(500, f"Internal error occurred: {DEAD}"))
    second = explain_refusal(refusal(500, f"Internal error occurred: {DEAD.replace(':1:', ':2:')}"))
    other = explain_refusal(refusal(500, f"Internal error occurred: {DEAD.replace('hook.', 'h.')}"))
    known = FineTuneStatus(reason=first.reason, message=first.message)
    assert second != first
    assert keep_known(known, second) == first
    assert keep_known(known, other) == other


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"{",
        b'{"details": 3}',
        b'{"details": {"causes": [3, null]}}',
        b'{"details": {"causes": {}}, "message": null}',
        b'{"details": {"causes": [{"field": null, "message": 3}]}}',
        b"\xff\xfe",
    ],
)
def test_any_answer_is_an_error_with_its_words(body: bytes) -> None:
    error = _to_error(403, body, 1.0)
    assert error.status == 403
    assert error.message
    found = Refusal("create", "Job", "j", error.status, error.message, error.causes)
    assert explain_refusal(found, a_finetune()).reason == Reason.FORBIDDEN
