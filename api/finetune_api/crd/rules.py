"""Rules of a FineTune's spec that span several fields or updates, for the API server."""

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
)
