"""Rules of a FineTune's spec that span several fields or updates, for the API server.

The API server evaluates every rule at each write of the status as well, and there they cost more
than the rest of the validation: each access to a field builds a table of all its siblings.
Therefore a rule on what cannot change is evaluated only for a new FineTune, and a field that cannot
change has a rule of its own, which reads nothing else.
"""

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

# Those of a Model. All others describe what was trained.
MUTABLE_MODEL_FIELDS = frozenset({"deletionPolicy", "serving", "serve"})

# Pairs of a CEL rule on a FineTune and the message when it is broken.
_WHOLE_RULES: tuple[tuple[str, str], ...] = (
    (
        "has(self.spec.trainingFile) || has(self.spec.trainingFiles)",
        "trainingFile is required, or trainingFiles for several files",
    ),
    (
        "!has(self.spec.trainingFile) || !has(self.spec.trainingFiles)",
        "set trainingFile or trainingFiles, not both",
    ),
    (
        "!has(self.spec.trainingFiles) || self.spec.trainingFiles.all(one, "
        "self.spec.trainingFiles.exists_one(other, other.uri == one.uri))",
        "trainingFiles lists a file twice: list each file once, and repeat its examples with a "
        "weight",
    ),
    (
        "!has(self.spec.trainingFiles) || self.spec.trainingFiles.all(one, has(one.weight)) "
        "|| self.spec.trainingFiles.all(one, !has(one.weight))",
        "trainingFiles: set a weight for every file or for none",
    ),
    (
        "!self.spec.hyperparameters.computeClassificationMetrics || has(self.spec.validationFile)",
        "hyperparameters.computeClassificationMetrics needs a validationFile",
    ),
    (
        "!self.spec.hyperparameters.computeClassificationMetrics "
        "|| has(self.spec.hyperparameters.classificationNClasses) "
        "|| has(self.spec.hyperparameters.classificationPositiveClass)",
        "hyperparameters.computeClassificationMetrics needs classificationNClasses, or "
        "classificationPositiveClass for two classes",
    ),
    (
        "!has(self.spec.hyperparameters.classificationBetas) "
        "|| has(self.spec.hyperparameters.classificationPositiveClass)",
        "hyperparameters.classificationBetas needs classificationPositiveClass",
    ),
    (
        "!has(self.spec.hyperparameters.learningRate) "
        "|| !has(self.spec.hyperparameters.learningRateMultiplier)",
        "set hyperparameters.learningRate or learningRateMultiplier, not both",
    ),
    (
        "self.spec.method.type == 'lora' || (!has(self.spec.method.rank) "
        "&& !has(self.spec.method.alpha) && !has(self.spec.method.dropout) "
        "&& !has(self.spec.method.targets))",
        "method.rank, alpha, dropout and targets belong to method.type lora",
    ),
    (
        "!has(self.spec.deepspeed) || !has(self.spec.deepspeed.offload) "
        "|| self.spec.deepspeed.offload != 'parameters' || !has(self.spec.deepspeed.zeroStage) "
        "|| self.spec.deepspeed.zeroStage == 3",
        "deepspeed.offload parameters needs deepspeed.zeroStage 3",
    ),
    (
        "!has(self.spec.deepspeed) || !self.spec.deepspeed.overlapCommunication "
        "|| !has(self.spec.deepspeed.zeroStage) || self.spec.deepspeed.zeroStage == 3",
        "deepspeed.overlapCommunication needs deepspeed.zeroStage 3",
    ),
    (
        "!has(self.spec.priorityClassName) || !self.spec.priorityClassName.startsWith('system-')",
        "priorityClassName cannot be one of Kubernetes' own (system-...)",
    ),
    (
        "!has(self.spec.podLabels) || self.spec.podLabels.all(key, size(key) <= 317)",
        "a key in podLabels may have at most 317 characters",
    ),
    (
        "!has(self.spec.podAnnotations) || self.spec.podAnnotations.all(key, size(key) <= 317)",
        "a key in podAnnotations may have at most 317 characters",
    ),
)


def _bytes_rule(field: str, most: int) -> tuple[str, str]:
    rule = f"!has(self.spec.{field}) || bytes(self.spec.{field}).size() <= {most}"
    return rule, f"spec.{field} may have at most {most} bytes"


# Rules on a new FineTune: one without a status. They read only fields that cannot change, and
# FineTunes of earlier versions stay valid, because the operator writes a status at once. (A rule
# with optionalOldSelf needs Kubernetes 1.30.)
NEW_RULES: tuple[tuple[str, str], ...] = tuple(
    (f"has(self.status) || ({rule})", message)
    for rule, message in (
        *_WHOLE_RULES,
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

# On a Model. They read only fields that may change.
MODEL_RULES: tuple[tuple[str, str], ...] = (
    (
        "!has(self.spec.serve) || !has(self.spec.serving)",
        "set spec.serve, for a server of the operator, or spec.serving, for one of your own, not "
        "both",
    ),
    (
        "!has(self.spec.serve) || !has(self.spec.serve.minReplicas) "
        "|| self.spec.serve.minReplicas <= self.spec.serve.replicas",
        "serve.minReplicas may be at most serve.replicas",
    ),
)
