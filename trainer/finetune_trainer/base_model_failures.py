"""The catalog of the failures of base models that cannot be trained: BaseModelInvalid."""

from collections.abc import Sequence
from typing import Literal

from finetune_api.names import Reason
from finetune_api.outcome import Failure

WEIGHTS_SHOWN = 5  # names of weights in a message
LINES = 20  # of a failure
WeightsCause = Literal["version", "no head", "vocabulary"]

CAUSAL = "use a causal language model, such as Llama, Qwen, or GPT-2"
ORIGINAL = "use the original model in bf16, fp16, or fp32: quantized files are for inference only"

# --- weights --------------------------------------------------------------------------------------


def unfit_weights(problems: Sequence[str], cause: WeightsCause = "version") -> Failure:
    """problems: "lm_head.weight is missing", for every weight. cause: selects the remedy."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the weights of the base model do not match its config.json: {_first(problems)}",
        hint=_WEIGHTS_HINTS[cause],
        lines=problems,
    )


_WEIGHTS_HINTS: dict[WeightsCause, str] = {
    "version": "copy config.json and all files of the weights from the same version of the model",
    "no head": "the files have no head, like those that AutoModel saves: load the complete model "
    "with AutoModelForCausalLM, and save it again",
    "vocabulary": "vocab_size in config.json must be the number of rows of the embeddings: save "
    "the model again after resize_token_embeddings, with its config.json",
}


def too_many_layers(layers: int, tensors: int) -> Failure:
    """layers: of config.json. tensors: in the files."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"config.json says that the base model has {layers:,} layers, but its files have only "
        f"{tensors:,} tensors",
        hint=_WEIGHTS_HINTS["version"],
    )


def unloadable_model(error: Exception) -> Failure:
    """error: of transformers, for config.json and the headers of the weights."""
    detail = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"transformers cannot load the base model: {type(error).__name__}: {detail}",
        hint="check config.json, or use a model that AutoModelForCausalLM.from_pretrained loads",
    )


def unreadable_config(problem: str) -> Failure:
    """problem: names the file."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the base model cannot be used: {problem}",
        hint="repair the file, or copy the model again",
    )


def distracting_file(name: str) -> Failure:
    """name: of a file with which transformers would load other weights."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the folder of the model has the file {name} next to config.json, with which "
        "transformers would load other weights",
        hint="move the file to another folder; an adapter belongs into a folder of its own",
    )


def unusable_adapter(problem: str) -> Failure:
    """problem: begins with a verb."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the adapter cannot be used: its folder {problem}",
        hint="use an adapter that this version or peft's LoraConfig has saved as safetensors",
    )


def unreadable_weights(problem: str) -> Failure:
    """problem: names the file."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the weights of the base model cannot be used: {problem}",
        hint="copy the files of the weights again, or save the model again with save_pretrained",
    )


def quantized_base(method: str, weights: Sequence[str] = ()) -> Failure:
    """method: "gptq", as in quantization_config. weights: names of packed tensors."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the base model is quantized ({method}), and quantized weights cannot be trained",
        hint=ORIGINAL,
        lines=weights,
    )


def integer_weights(problems: Sequence[str]) -> Failure:
    """problems: "lm_head.weight has the type I8", for every weight."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        "the base model has weights that are not floating-point numbers of at least 16 bits: "
        f"{_first(problems)}",
        hint=ORIGINAL,
        lines=problems,
    )


# --- kinds of models ------------------------------------------------------------------------------


def code_of_base(model_type: str, code: str) -> Failure:
    """code: the entry of auto_map."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the base model needs its own code ({code}), which is never run: transformers has no "
        f"causal language model of the type {model_type!r}",
        hint="use a model whose type is a part of transformers, or a version of this model that "
        "was converted to one",
    )


def unknown_model_type(model_type: str, version: str) -> Failure:
    """version: of transformers."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"transformers {version} does not know the model_type {model_type!r} of config.json",
        hint="check model_type; a newer model needs a trainer image with a newer transformers",
    )


def encoder_decoder_base(model_type: str) -> Failure:
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the base model has an encoder and a decoder (model_type {model_type!r}), and only causal "
        "language models can be trained",
        hint=CAUSAL,
    )


def not_causal_type(model_type: str) -> Failure:
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        "the base model is not a causal language model: transformers has none of the type "
        f"{model_type!r}",
        hint="use a causal language model, such as Llama, Qwen, or GPT-2; if this model also reads "
        "images or sound, save its language model as a model of its own",
    )


def not_causal(model_type: str) -> Failure:
    """A test run has shown it."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the base model is not a causal language model (model_type {model_type!r}): its "
        "prediction at one position depends on the tokens after it",
        hint="use a causal language model, such as Llama, Qwen, or GPT-2; if it is one, check "
        "is_decoder, is_causal, and use_bidirectional_attention in config.json",
    )


def other_head(architecture: str, weights: Sequence[str]) -> Failure:
    """architecture: "LlamaForSequenceClassification". weights: the names of its head's."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the base model is a {architecture}, whose head does not predict tokens",
        hint="use the causal language model that it was made from",
        lines=weights,
    )


def large_vocabulary(tokens: Sequence[str], highest: int, rows: int) -> Failure:
    """tokens: those that have no row. highest: the largest id. rows: of the embeddings."""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        f"the tokenizer of the base model has tokens up to {highest:,}, but the embeddings have "
        f"only {rows:,} rows",
        hint="copy the tokenizer and the weights from the same version of the model, or save the "
        "model again after resize_token_embeddings",
        lines=tokens,
    )


# --- the check itself -----------------------------------------------------------------------------


def check_crashed(error: BaseException, log: Sequence[str]) -> Failure:
    return Failure(
        code=Reason.INTERNAL,
        message=f"the check of the base model crashed: {type(error).__name__}: {error}"[:500],
        hint="report the log of the pod; without the check (chart value baseCheck.enabled), the "
        "training pods check the base model",
        log=list(log),
    )


def check_ended(exit_code: int) -> Failure:
    """The process of the check left no outcome."""
    return Failure(
        code=Reason.INTERNAL,
        message=f"the check of the base model ended with exit code {exit_code}",
        hint="see the log lines above; 137 is a process that was killed, for example for memory",
    )


def _first(problems: Sequence[str]) -> str:
    first = list(problems[:WEIGHTS_SHOWN])
    if len(problems) > WEIGHTS_SHOWN:
        first.append(f"and {len(problems) - WEIGHTS_SHOWN} more")
    return "; ".join(first)


def _base_model(code: str, message: str, *, hint: str, lines: Sequence[str] = ()) -> Failure:
    return Failure(
        code=code, message=message, hint=hint, param="model", lines=list(lines[:LINES]) or None
    )
