"""Labels and annotations of the pods: of the chart, the runtime, the FineTune, and the operator."""

from collections.abc import Sequence
from typing import Any

from finetune_api.finetune import FineTune
from finetune_operator.keys import is_allowed
from finetune_operator.pod_fields import is_own_key
from finetune_operator.runtimes import PodRuntime
from finetune_operator.settings import Settings

Texts = dict[str, str]


def pod_metadata(
    settings: Settings,
    labels: Texts,
    annotations: Texts | None = None,
    *,
    finetune: FineTune | None = None,
    runtime: PodRuntime | None = None,
) -> dict[str, Any]:
    """The metadata of a pod template. labels and annotations: the operator's own, which prevail.

    finetune: with the labels and annotations of the user. runtime: of training and serving pods.
    """
    spec, pods = finetune.spec if finetune else None, settings.pods
    all_labels = {
        **_allowed(spec.pod_labels if spec else None, pods.allowed_label_prefixes),
        **pods.labels,
        **(runtime.pod_labels if runtime else {}),
        **labels,
    }
    all_annotations = {
        **_allowed(spec.pod_annotations if spec else None, pods.allowed_annotation_prefixes),
        **pods.annotations,
        **(runtime.pod_annotations if runtime else {}),
        **(annotations or {}),
    }
    return {
        "labels": all_labels,
        **({"annotations": all_annotations} if all_annotations else {}),
    }


def _allowed(given: Texts | None, prefixes: Sequence[str]) -> Texts:
    """What the chart still allows: an administrator may have removed a prefix since the start."""
    return {
        key: value
        for key, value in (given or {}).items()
        if is_allowed(key, prefixes) and not is_own_key(key)
    }
