"""What is trained and what is measured, from the spec to what the pods are told."""

from finetune_api.finetune import FineTuneSpec
from finetune_api.tasks import Classification, MethodRef


def build_method(spec: FineTuneSpec) -> MethodRef:
    """What the spec leaves open keeps MethodRef's default; alpha is twice the rank."""
    given = spec.method.model_dump(exclude_none=True)
    if spec.method.rank is not None and spec.method.alpha is None:
        given["alpha"] = 2.0 * spec.method.rank
    return MethodRef(**given)


def build_classification(spec: FineTuneSpec) -> Classification | None:
    asked = spec.hyperparameters
    if not asked.compute_classification_metrics:
        return None
    return Classification(
        n_classes=asked.classification_n_classes,
        positive_class=asked.classification_positive_class,
        betas=asked.classification_betas or [],
    )
