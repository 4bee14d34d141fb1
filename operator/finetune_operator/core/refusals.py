"""Requests of the operator that the API server refuses: from its answer to one sentence.

The forms of the messages are those of Kubernetes 1.36, as the integration tests see them. They only
select the reason and the hint: an unknown answer is shown with the same words.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.messages import StatusMessage

CREATE, DELETE = "create", "delete"
INVALID = 422  # also the status of a policy without a reason of its own
DENIED, UNAUTHORIZED = 403, 401
DELAYS = frozenset({0, 408, 409, 429, UNAUTHORIZED})  # often over at the next try; like 5xx
WORST = 500

# An admission webhook that answered chooses the status itself: 400, 404, 409, or any other.
WEBHOOK_DENIED = re.compile(r'^admission webhook "[^"]*" denied the request')
POLICY_DENIED = re.compile(r"^(\S+ \"[^\"]*\" is forbidden: )?\w*AdmissionPolicy '[^']*' .*denied")
WEBHOOK_FAILED = re.compile(r"^(Internal error occurred: )?failed calling webhook ")
QUOTA = re.compile(r"^\S+ \"[^\"]*\" is forbidden: (\w+|status unknown for) quota\b")
PERMISSION = re.compile(r'is forbidden: User "[^"]*" cannot ')
ADMISSION = re.compile(r'^\S+ "[^"]*" is forbidden: ')
ENDING = "NamespaceTerminating"

# What the sentence says already.
PREFIX = re.compile(r'^(?:\S+ "[^"]*" is (?:forbidden|invalid): |Internal error occurred: )')
# Parts that differ between two tries although the cause is the same.
VOLATILE = re.compile(r"\d+\.\d+\.\d+\.\d+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?|(?<==)\d+\w*")

POD = "spec.template.spec."
FIELDS = (  # of a Job -> of the FineTune
    (f"{POD}tolerations", "scheduling.tolerations"),
    (f"{POD}nodeSelector", "scheduling.nodeSelector"),
    (f"{POD}priorityClassName", "priorityClassName"),
    ("spec.completions", "resources.nodes"),
    ("spec.parallelism", "resources.nodes"),
    ("metadata.labels", "queueName"),
)
AMOUNT = re.compile(r"\.resources\.(?:limits|requests)(?:\[(?P<key>[^]]+)\]|\.(?P<name>[\w-]+))")
AMOUNTS = {"cpu": "cpu", "memory": "memory", "ephemeral-storage": "ephemeralStorage"}


class Cause(NamedTuple):
    """One of `details.causes` of a Status."""

    reason: str
    field: str
    message: str


@dataclass(frozen=True)
class Refusal:
    """A request that failed, and the Status that the API server answered."""

    verb: str
    kind: str  # Job, or a plural for a list
    name: str
    status: int  # of HTTP; 0: no answer
    message: str
    causes: tuple[Cause, ...] = ()
    model: tuple[str, str] | None = None  # ID and address of the published model, for a Model

    @property
    def is_denied(self) -> bool:
        """Whether a policy, a webhook, or a quota is the cause, whatever the HTTP status is."""
        return _reason(self) in {Reason.POLICY_DENIED, Reason.WEBHOOK_FAILED, Reason.QUOTA_EXCEEDED}

    @property
    def is_transient(self) -> bool:
        """Whether it may be over at once: only a repetition is worth a sentence in the status."""
        is_delay = self.status in DELAYS or self.status >= WORST
        return is_delay and _reason(self) == Reason.REQUEST_REFUSED


def explain_refusal(refusal: Refusal, finetune: FineTune | None = None) -> StatusMessage:
    """The reason, with a sentence of what cannot be done, why, and what to do.

    finetune: whose fields the sentence may name.
    """
    what = messages.cannot(refusal.verb, refusal.kind, refusal.name)
    if refusal.model is not None:
        what = messages.model_not_registered(*refusal.model, what)
    cause = PREFIX.sub("", refusal.message.strip(), count=1) or f"HTTP status {refusal.status}"
    reason = _reason(refusal)
    if reason == Reason.INVALID_SPEC:
        param = _find_param(refusal, finetune) if finetune else None
        if param is None:
            return messages.object_refused(what, cause)
        return messages.field_refused(what, cause, param)
    if reason == Reason.FORBIDDEN and is_terminating(refusal.causes):
        return messages.namespace_ends(what, cause)
    return {
        Reason.QUOTA_EXCEEDED: messages.quota_exceeded,
        Reason.POLICY_DENIED: messages.policy_denied,
        Reason.WEBHOOK_FAILED: messages.webhook_failed,
        Reason.FORBIDDEN: messages.permission_missing,
        Reason.REQUEST_REFUSED: messages.request_refused,
    }[reason](what, cause)


def is_terminating(causes: tuple[Cause, ...]) -> bool:
    """Whether a creation is refused because the namespace is being deleted."""
    return any(cause.reason == ENDING for cause in causes)


def keep_known(before: FineTuneStatus, found: StatusMessage) -> StatusMessage:
    """The message of the status if only addresses and amounts differ: each write costs etcd."""
    known = before.message or ""
    is_same = before.reason == found.reason and _fixed(known) == _fixed(found.message)
    return StatusMessage(found.reason, known) if is_same else found


def _fixed(message: str) -> str:
    return VOLATILE.sub("#", message)


def _reason(refusal: Refusal) -> str:
    text = refusal.message.strip()
    if WEBHOOK_DENIED.search(text) or POLICY_DENIED.search(text):
        return Reason.POLICY_DENIED
    if WEBHOOK_FAILED.search(text):
        return Reason.WEBHOOK_FAILED
    if QUOTA.search(text):
        return Reason.QUOTA_EXCEEDED
    if refusal.status in {INVALID, 400}:
        return Reason.INVALID_SPEC
    if refusal.status == DENIED:
        is_ending = is_terminating(refusal.causes)
        is_policy = ADMISSION.search(text) and not PERMISSION.search(text) and not is_ending
        return Reason.POLICY_DENIED if is_policy else Reason.FORBIDDEN
    return Reason.REQUEST_REFUSED


def _find_param(refusal: Refusal, finetune: FineTune) -> str | None:
    """The field of the FineTune that the first understood cause is about."""
    params = (_to_param(item.field, finetune) for item in refusal.causes)
    return next((param for param in params if param), None)


def _to_param(field: str, finetune: FineTune) -> str | None:
    amount = AMOUNT.search(field)
    if amount:
        key = amount["key"] or amount["name"]
        if key == finetune.spec.resources.gpu_resource:
            return "resources.gpuResource"
        is_set = key in AMOUNTS and getattr(finetune.spec.resources, key.replace("-", "_"), None)
        return f"resources.{AMOUNTS[key]}" if is_set else None
    for start, param in FIELDS:
        rest = field.removeprefix(start)
        if rest != field and rest[:1] in {"", ".", "["}:
            return param + rest if rest.startswith("[") else param
    return None
