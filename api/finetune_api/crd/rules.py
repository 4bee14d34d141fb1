"""Rules of a FineTune's spec that span several fields or updates, for the API server."""

from finetune_api.uris import ADDRESS_BYTES, OUTPUT_BYTES

# The fields that may change after creation. All others describe what is trained.
MUTABLE_FIELDS = frozenset(
    {
        "suspend",
        "cancel",
        "maxRestarts",
        "activeDeadlineSeconds",
        "pendingDeadlineSeconds",
        "stallSeconds",
        "ttlSecondsAfterFinished",
    }
)

# Pairs of a CEL rule on the spec and the message when it is broken.
SPEC_RULES: tuple[tuple[str, str], ...] = (
    (
        "has(self.trainingFile) || has(self.trainingFiles)",
        "trainingFile is required, or trainingFiles for several files",
    ),
    (
        "!has(self.trainingFile) || !has(self.trainingFiles)",
        "set trainingFile or trainingFiles, not both",
    ),
    (
        "!has(self.trainingFiles) || self.trainingFiles.all(one, "
        "self.trainingFiles.exists_one(other, other.uri == one.uri))",
        "trainingFiles lists a file twice: list each file once, and repeat its examples with a "
        "weight",
    ),
    (
        "!has(self.trainingFiles) || self.trainingFiles.all(one, has(one.weight)) "
        "|| self.trainingFiles.all(one, !has(one.weight))",
        "trainingFiles: set a weight for every file or for none",
    ),
    (
        "!self.hyperparameters.computeClassificationMetrics || has(self.validationFile)",
        "hyperparameters.computeClassificationMetrics needs a validationFile",
    ),
    (
        "!self.hyperparameters.computeClassificationMetrics "
        "|| has(self.hyperparameters.classificationNClasses) "
        "|| has(self.hyperparameters.classificationPositiveClass)",
        "hyperparameters.computeClassificationMetrics needs classificationNClasses, or "
        "classificationPositiveClass for two classes",
    ),
    (
        "!has(self.hyperparameters.classificationBetas) "
        "|| has(self.hyperparameters.classificationPositiveClass)",
        "hyperparameters.classificationBetas needs classificationPositiveClass",
    ),
    (
        "!has(self.hyperparameters.learningRate) "
        "|| !has(self.hyperparameters.learningRateMultiplier)",
        "set hyperparameters.learningRate or learningRateMultiplier, not both",
    ),
    (
        "self.method.type == 'lora' || (!has(self.method.rank) && !has(self.method.alpha) "
        "&& !has(self.method.dropout) && !has(self.method.targets))",
        "method.rank, alpha, dropout and targets belong to method.type lora",
    ),
    (
        "!has(self.deepspeed) || !has(self.deepspeed.offload) "
        "|| self.deepspeed.offload != 'parameters' || !has(self.deepspeed.zeroStage) "
        "|| self.deepspeed.zeroStage == 3",
        "deepspeed.offload parameters needs deepspeed.zeroStage 3",
    ),
    (
        "!has(self.deepspeed) || !self.deepspeed.overlapCommunication "
        "|| !has(self.deepspeed.zeroStage) || self.deepspeed.zeroStage == 3",
        "deepspeed.overlapCommunication needs deepspeed.zeroStage 3",
    ),
    (
        "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
        "priorityClassName cannot be one of Kubernetes' own (system-...)",
    ),
    (
        "!has(self.podLabels) || self.podLabels.all(key, size(key) <= 317)",
        "a key in podLabels may have at most 317 characters",
    ),
    (
        "!has(self.podAnnotations) || self.podAnnotations.all(key, size(key) <= 317)",
        "a key in podAnnotations may have at most 317 characters",
    ),
)


def _bytes_rule(field: str, most: int) -> tuple[str, str]:
    rule = f"!has(self.spec.{field}) || bytes(self.spec.{field}).size() <= {most}"
    return rule, f"spec.{field} may have at most {most} bytes"


# Rules on a new FineTune: one without a status. FineTunes of earlier versions stay valid, because
# the operator writes a status at once. (A rule with optionalOldSelf needs Kubernetes 1.30.)
NEW_RULES: tuple[tuple[str, str], ...] = tuple(
    (f"has(self.status) || {rule}", message)
    for rule, message in (
        _bytes_rule("output", OUTPUT_BYTES),
        _bytes_rule("trainingFile", ADDRESS_BYTES),
        _bytes_rule("validationFile", ADDRESS_BYTES),
        (
            "!has(self.spec.trainingFiles) || self.spec.trainingFiles.all(one, "
            f"bytes(one.uri).size() <= {ADDRESS_BYTES})",
            f"the address of a training file may have at most {ADDRESS_BYTES} bytes",
        ),
    )
)
