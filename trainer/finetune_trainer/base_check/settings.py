"""What config.json shows without the weights: quantization, custom code, other kinds of models."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from finetune_api.errors import FailureError
from finetune_data.models.base_models import CONFIG, read_json, text_settings
from finetune_trainer import base_model_failures
from finetune_trainer.engine.configuration import check_quantization, read_config

AUTO_CLASS = "AutoModelForCausalLM"
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
LAYERS_AT_LEAST = 1000  # that no model of any files exceeds
# Of classes whose head reads a vector and predicts no tokens, in transformers and elsewhere.
OTHER_HEAD = re.compile(
    r"For(Sequence|Token|Audio|Image)\w*Classification|ForQuestionAnswering|ForMultipleChoice"
    r"|ForNextSentencePrediction|ForExtractiveQA|Reward|ValueHead|ForTextEncoding|ForRetrieval"
    r"|ForRegression|CrossEncoder|Classifier$"
)


def check_settings(folder: Path, weights: Collection[str]) -> Any:
    """The parsed config of a model that config.json does not rule out.

    weights: names in the files. Raises FailureError (BaseModelInvalid).
    """
    try:
        settings = read_json(folder / CONFIG)
    except ValueError as error:
        raise FailureError(base_model_failures.unreadable_config(str(error))) from error
    check_quantization(settings)
    _check_layers(settings, weights)
    config = _parse(folder, settings)
    _check_kind(config, settings)
    _check_head(config, weights)
    return config


def _parse(folder: Path, settings: Mapping[str, Any]) -> Any:
    from transformers import __version__ as version
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = settings.get("model_type")
    if kind not in CONFIG_MAPPING:
        if code := _own_code(settings):
            raise FailureError(base_model_failures.code_of_base(str(kind), code))
        raise FailureError(base_model_failures.unknown_model_type(str(kind), version))
    return read_config(folder)


def _own_code(settings: Mapping[str, Any]) -> str | None:
    """The class in the code that came with the model, if any."""
    entries = settings.get("auto_map")
    if not isinstance(entries, dict):
        return None
    code = entries.get(AUTO_CLASS) or next(iter(entries.values()), None)
    return None if code is None else f"{code!s:.200}"


def _check_kind(config: Any, settings: Mapping[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind = str(config.model_type)
    if getattr(config, "is_encoder_decoder", False):
        raise FailureError(base_model_failures.encoder_decoder_base(kind))
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        if code := _own_code(settings):
            raise FailureError(base_model_failures.code_of_base(kind, code))
        raise FailureError(base_model_failures.not_causal_type(kind))


def _check_head(config: Any, weights: Collection[str]) -> None:
    """Refuse a model with another head, whose own head the loader would drop."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    causal = {name for names in NAMES.values() for name in _flat(names)}
    written = [name for name in config.architectures or [] if isinstance(name, str)]
    if any(name in causal for name in written):
        return
    other = next((name for name in written if OTHER_HEAD.search(name)), None)
    if other is not None:
        own = sorted(name for name in weights if re.match(r"(score|classifier|qa_outputs)\b", name))
        raise FailureError(base_model_failures.other_head(f"{other:.100}", own))


def _check_layers(settings: Mapping[str, Any], weights: Collection[str]) -> None:
    """Refuse more layers than tensors: a config lists a type for each, which fills the memory."""
    text = text_settings(settings)
    for layers in (text.get(name) for name in LAYER_COUNTS):
        if isinstance(layers, int) and layers > max(LAYERS_AT_LEAST, len(weights)):
            raise FailureError(base_model_failures.too_many_layers(layers, len(weights)))


def _flat(names: object) -> tuple[str, ...]:
    return tuple(names) if isinstance(names, (tuple, list)) else (str(names),)
