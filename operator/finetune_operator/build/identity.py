"""Names, labels and owners of everything that a FineTune has."""

from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune

NAME_CHARACTERS = 35  # leaves room for UID, attempt and an Indexed Job's pod index in 63


def child_name(finetune: FineTune, what: str) -> str:
    """`ft-<name>-<uid8>-<what>`: a Service refuses dots, so the name's dots become dashes."""
    meta = finetune.metadata
    return f"ft-{meta.name.replace('.', '-')[:NAME_CHARACTERS]}-{meta.uid[:8]}-{what}"


def attempt_name(finetune: FineTune, attempt: int) -> str:
    """Of an attempt's Job and Service: the number keeps a straggler out of the next attempt."""
    return child_name(finetune, f"a{attempt}")


def labels(finetune: FineTune, component: str, attempt: int | None = None) -> dict[str, str]:
    found = {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_FINETUNE: finetune.metadata.name,
        names.LABEL_UID: finetune.metadata.uid,
        names.LABEL_COMPONENT: component,
    }
    return found if attempt is None else {**found, names.LABEL_ATTEMPT: str(attempt)}


def owner_reference(finetune: FineTune) -> dict[str, Any]:
    """Kubernetes collects the children, whether the operator runs or not."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "FineTune",
        "name": finetune.metadata.name,
        "uid": finetune.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def child_metadata(
    finetune: FineTune, name: str, component: str, attempt: int | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": finetune.metadata.namespace,
        "labels": labels(finetune, component, attempt),
        "ownerReferences": [owner_reference(finetune)],
    }
