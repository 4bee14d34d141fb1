"""Names, labels, and owner references of the children of a FineTune."""

from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune

NAME_CHARACTERS = 35  # of 63; the rest is for the UID, the attempt, and the pod index


def child_name(finetune: FineTune, what: str) -> str:
    """`ft-<name>-<uid8>-<what>`, with dashes for dots, which names of Services cannot have."""
    meta = finetune.metadata
    return f"ft-{meta.name.replace('.', '-')[:NAME_CHARACTERS]}-{meta.uid[:8]}-{what}"


def attempt_name(finetune: FineTune, attempt: int) -> str:
    """The name of an attempt's Job and Service: no pod of an old attempt joins the next one."""
    return child_name(finetune, f"a{attempt}")


def prepare_name(finetune: FineTune) -> str:
    return child_name(finetune, "prepare")


def lookup_name(finetune: FineTune) -> str:
    return child_name(finetune, "lookup")


def labels(finetune: FineTune, component: str, attempt: int | None = None) -> dict[str, str]:
    found = {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_FINETUNE: finetune.metadata.name,
        names.LABEL_UID: finetune.metadata.uid,
        names.LABEL_COMPONENT: component,
    }
    return found if attempt is None else {**found, names.LABEL_ATTEMPT: str(attempt)}


def owner_reference(finetune: FineTune) -> dict[str, Any]:
    """Kubernetes deletes the children with their owner, even if the operator is not running."""
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
