"""Kubernetes Events about FineTunes and Models. Their names make a second POST harmless."""

import hashlib
from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune, Metadata
from finetune_api.finetune_status import EventEntry
from finetune_api.text.sanitizing import sanitize

NAME_CHARACTERS = 200  # of the object's; 253 minus the digest
MESSAGE_CHARACTERS = 1024  # the limit of Kubernetes


def build_event(finetune: FineTune, entry: EventEntry) -> dict[str, Any]:
    """The Event of an entry of the status."""
    found = _event("FineTune", finetune.metadata, entry.reason, entry.message, entry.at)
    return found if entry.level == "info" else found | WARNING


def build_model_event(
    meta: Metadata, reason: str, message: str, at: str, *, is_warning: bool
) -> dict[str, Any]:
    """An Event about a Model. at: time of the change, which is the same if it is posted again."""
    found = _event("Model", meta, reason, message[:MESSAGE_CHARACTERS], at)
    return found | WARNING if is_warning else found


WARNING = {"type": "Warning"}


def _event(kind: str, meta: Metadata, reason: str, message: str, at: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{meta.uid} {at} {message}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{meta.name[:NAME_CHARACTERS]}.{digest}",
            "namespace": meta.namespace,
        },
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
        },
        "type": "Normal",
        "reason": reason,
        "message": sanitize(message),
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": names.MANAGED_BY},
        "reportingComponent": f"{names.GROUP}/operator",
        "reportingInstance": names.MANAGED_BY,
    }
