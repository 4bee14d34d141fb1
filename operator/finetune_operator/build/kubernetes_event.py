"""Kubernetes Events about a FineTune. Their names make a second POST harmless."""

import hashlib
from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry
from finetune_api.text.sanitizing import sanitize


def build_event(finetune: FineTune, entry: EventEntry) -> dict[str, Any]:
    meta = finetune.metadata
    digest = hashlib.sha256(f"{meta.uid} {entry.at} {entry.message}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta.name}.{digest}", "namespace": meta.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": "FineTune",
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
        },
        "type": "Normal" if entry.level == "info" else "Warning",
        "reason": entry.reason,
        "message": sanitize(entry.message),
        "firstTimestamp": entry.at,
        "lastTimestamp": entry.at,
        "count": 1,
        "source": {"component": names.MANAGED_BY},
        "reportingComponent": f"{names.GROUP}/operator",
        "reportingInstance": names.MANAGED_BY,
    }
