"""The fields of a FineTune's spec under the names that a request has for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic.alias_generators import to_camel

from finetune_api.wire import JsonObject

# The hyperparameters of OpenAI's fine-tuning API, and those that its fine-tunes API has as well.
JOB_HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")
FINE_TUNE_HYPERPARAMETERS = (
    *JOB_HYPERPARAMETERS,
    "prompt_loss_weight",
    "compute_classification_metrics",
    "classification_n_classes",
    "classification_positive_class",
    "classification_betas",
)
# Further fields of the spec; `finetune` in a request has them with the names of the spec.
EXTENSION = "finetune"
_COMMON = {
    "model": "model",
    "suffix": "suffix",
    "trainingFile": "training_file",
    "validationFile": "validation_file",
}
_WORD = re.compile(r"(?:spec\.)?([a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)*)")
_INDEX = re.compile(r"\[[^]]*\].*")


@dataclass(frozen=True)
class RequestFields:
    """How one request calls the fields of the spec."""

    own: Mapping[str, str]  # path in the spec -> field of the request
    extension: JsonObject = field(default_factory=dict)  # the request's `finetune`

    def param(self, path: str) -> str:
        """The request's name of a field. path: in the spec, such as hyperparameters.nEpochs.

        A field that only the catalog's entry of the model has keeps the name of the spec.
        """
        if self._extends(path):
            return f"{EXTENSION}.{path}"
        return self.own.get(_INDEX.sub("", path), path)

    def find_param(self, text: str) -> str | None:
        """The first field that a sentence of the API server mentions."""
        words = (found[1] for found in _WORD.finditer(text))
        return next((self.param(word) for word in words if self._is_known(word)), None)

    def rewrite(self, text: str) -> str:
        """The sentence with the request's names of the fields."""

        def replace(found: re.Match[str]) -> str:
            return self.param(found[1]) if self._is_known(found[1]) else found[0]

        return _WORD.sub(replace, text)

    def _is_known(self, word: str) -> bool:
        """Whether a word is a field, and not English: it has a dot or a capital letter."""
        return word != word.lower() and (word in self.own or self._extends(word))

    def _extends(self, path: str) -> bool:
        found: object = self.extension
        for part in _INDEX.sub("", path).split("."):
            if not isinstance(found, dict) or part not in found:
                return False
            found = found[part]
        return True


def fine_tune_fields(extension: JsonObject) -> RequestFields:
    """The fields of POST /v1/fine-tunes: every hyperparameter is at the top."""
    own = dict(_COMMON)
    for name in FINE_TUNE_HYPERPARAMETERS:
        # The API server's sentences name some fields by their last part.
        own[to_camel(name)] = own[f"hyperparameters.{to_camel(name)}"] = name
    return RequestFields(own, extension)


def job_fields(extension: JsonObject, prefix: str) -> RequestFields:
    """The fields of POST /v1/fine_tuning/jobs.

    prefix: of the hyperparameters, as the request has them.
    """
    own = {**_COMMON, "hyperparameters.seed": "seed"}
    for name in JOB_HYPERPARAMETERS:
        own[to_camel(name)] = own[f"hyperparameters.{to_camel(name)}"] = f"{prefix}.{name}"
    return RequestFields(own, extension)
