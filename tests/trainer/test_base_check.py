"""Base models that cannot be trained are refused with names and a remedy; all others pass."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_trainer.base_check.check import check_base_model, inspection, read_base
from finetune_trainer.base_check.settings import check_settings
from finetune_trainer.engine.loading import load_for_training
from tests.trainer import architectures

WEIGHTS = "model.safetensors"
ALL = architectures.ALL
Change = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, made once. Tests copy it."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        path = root / name.replace(" ", "-")
        if not path.exists():
            architectures.model_of(*ALL[name]).save_pretrained(path)
        return path

    return folder


@pytest.fixture
def model(saved: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a tiny model with changed settings (None removes one)."""

    def copy(name: str = "llama", **settings: Any) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(saved(name), folder)
        change_settings(folder, **settings)
        return folder

    return copy


def change_settings(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def change_weights(folder: Path, change: Change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def check(folder: Path) -> list[str]:
    """What was not tested. Raises FailureError."""
    notes: list[str] = []
    check_base_model(read_base(folder), notes.append)
    return notes


def failure_of(folder: Path) -> Failure:
    with pytest.raises(FailureError) as caught:
        check(folder)
    failure = caught.value.failure
    assert (failure.code, failure.param) == (Reason.BASE_MODEL_INVALID, "model")
    assert failure.hint
    return failure


# --- weights --------------------------------------------------------------------------------------


def without(*parts: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if any(part in name for part in parts)]:
            del tensors[name]

    return change


def test_a_missing_layer_is_named(model: Callable[..., Path]) -> None:
    folder = model()
    change_weights(folder, without("layers.1."))
    failure = failure_of(folder)
    assert "model.layers.1.input_layernorm.weight is missing" in failure.message
    assert failure.lines is not None
    assert len(failure.lines) == 9
    assert all("layers.1." in line for line in failure.lines)


def test_more_layers_than_the_config_are_named(model: Callable[..., Path]) -> None:
    failure = failure_of(model(num_hidden_layers=1, layer_types=None))
    assert "model.layers.1.input_layernorm.weight is not in the model" in (failure.lines or [])


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_more_layers_than_tensors_are_refused_before_the_model_is_built(
    name: str, model: Callable[..., Path]
) -> None:
    failure = failure_of(model(num_hidden_layers=9_000, layer_types=None, model_type=name))
    assert "has 9,000 layers, but its files have only 21 tensors" in failure.message


def test_a_missing_head_has_its_own_remedy(model: Callable[..., Path]) -> None:
    folder = model()
    change_weights(folder, without("lm_head"))
    failure = failure_of(folder)
    assert failure.lines == ["lm_head.weight is missing"]
    assert "AutoModelForCausalLM" in (failure.hint or "")


def test_another_vocabulary_has_its_own_remedy(model: Callable[..., Path]) -> None:
    failure = failure_of(model(vocab_size=70))
    shapes = "has the shape [64, 32] instead of [70, 32]"
    assert failure.lines == [f"lm_head.weight {shapes}", f"model.embed_tokens.weight {shapes}"]
    assert "resize_token_embeddings" in (failure.hint or "")


def test_another_width_is_named(model: Callable[..., Path]) -> None:
    failure = failure_of(model(hidden_size=36, head_dim=8))
    name = "model.layers.0.mlp.up_proj.weight"
    assert f"{name} has the shape [48, 32] instead of [48, 36]" in (failure.lines or [])


def test_incomplete_experts_are_named(model: Callable[..., Path]) -> None:
    folder = model("mixtral")
    gone = "model.layers.1.block_sparse_moe.experts.3.w1.weight"
    change_weights(folder, without(gone))
    assert f"{gone} is missing" in (failure_of(folder).lines or [])


def test_experts_of_another_shape_are_named(model: Callable[..., Path]) -> None:
    folder = model("mixtral")
    name = "model.layers.1.block_sparse_moe.experts.3.w1.weight"
    change_weights(folder, lambda tensors: tensors.update({name: torch.ones(47, 32)}))
    line = f"{name} has the shape [47, 32], and the others [48, 32]"
    assert line in (failure_of(folder).lines or [])


def test_a_bare_model_without_its_head_is_refused_and_a_tied_one_passes(tmp_path: Path) -> None:
    for name in ("llama", "tied llama"):
        whole = architectures.model_of(*ALL[name])
        whole.model.save_pretrained(tmp_path / name)
    assert failure_of(tmp_path / "llama").lines == ["lm_head.weight is missing"]
    assert check(tmp_path / "tied llama") == []


@pytest.mark.parametrize("kind", ["I8", "F8_E4M3", "I32"])
def test_integer_and_8_bit_weights_are_refused(kind: str, model: Callable[..., Path]) -> None:
    dtype = {"I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn, "I32": torch.int32}[kind]
    name = "model.layers.0.mlp.up_proj.weight"
    folder = model()
    change_weights(folder, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    assert failure_of(folder).lines == [f"{name} has the type {kind}"]


def test_8_bit_experts_are_refused(model: Callable[..., Path]) -> None:
    folder = model("qwen3_moe")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".experts." in name]:
            tensors[name] = tensors[name].to(torch.float8_e5m2)

    change_weights(folder, change)
    assert "has the type F8_E5M2" in (failure_of(folder).lines or [""])[0]


def test_damaged_files_are_refused(model: Callable[..., Path]) -> None:
    folder = model()
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-1])
    assert "model.safetensors has" in failure_of(folder).message
    (folder / WEIGHTS).write_bytes(data.replace(b'"data_offsets":[0,', b'"data_offsets":[4,', 1))
    assert "model.safetensors" in failure_of(folder).message


def test_an_index_that_lists_weights_that_no_shard_has(tmp_path: Path) -> None:
    architectures.model_of(*ALL["llama"]).save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    tensors = load_file(shards[-1])
    gone = sorted(tensors)[0]
    del tensors[gone]
    tensors["x.inv_freq"] = torch.ones(1)  # so that the file is not empty
    save_file(tensors, shards[-1], metadata={"format": "pt"})
    assert f"{gone} is missing" in (failure_of(tmp_path).lines or [])
    shards[-1].unlink()
    assert f"{shards[-1].name} is missing" in failure_of(tmp_path).message


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits"),
        ({"load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "of-tomorrow"}, "of-tomorrow"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_quantized_models_are_refused(
    found: dict[str, Any], method: str, model: Callable[..., Path]
) -> None:
    assert f"is quantized ({method})" in failure_of(model(quantization_config=found)).message


def test_a_quantized_text_model_in_a_larger_one_is_refused(model: Callable[..., Path]) -> None:
    folder = model(text_config={"quantization_config": {"quant_method": "awq"}})
    assert "is quantized (awq)" in failure_of(folder).message


@pytest.mark.parametrize(
    ("method", "packed"),
    [
        ("gptq", {"qweight": torch.int32, "qzeros": torch.int32, "g_idx": torch.int32}),
        ("awq", {"qweight": torch.int32, "scales": torch.float16}),
        ("compressed-tensors", {"weight_packed": torch.int32, "weight_shape": torch.int64}),
        ("bitsandbytes", {"weight": torch.uint8, "weight.absmax": torch.uint8}),
        ("bitsandbytes", {"weight": torch.int8, "SCB": torch.float32}),
        ("fp8", {"weight": torch.float8_e4m3fn, "weight_scale_inv": torch.float32}),
    ],
)
def test_packed_weights_without_settings_are_refused(
    method: str, packed: dict[str, torch.dtype], model: Callable[..., Path]
) -> None:
    folder = model()
    start = "model.layers.0.mlp.up_proj."

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[f"{start}weight"]
        tensors |= {f"{start}{key}": torch.ones(48, 32).to(kind) for key, kind in packed.items()}

    change_weights(folder, change)
    failure = failure_of(folder)
    assert f"is quantized ({method})" in failure.message
    assert all(line.startswith(start) for line in failure.lines or ["none"])


def test_settings_without_quantization_pass(model: Callable[..., Path]) -> None:
    folder = model()
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"quantization_config": null, ', 1))
    assert check(folder) == []


def test_code_of_its_own_is_refused_unless_transformers_has_the_model(
    model: Callable[..., Path],
) -> None:
    code = {"AutoConfig": "c.C", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}
    folder = model(model_type="x-of-tomorrow", auto_map=code)
    assert "modeling_x.XForCausalLM" in failure_of(folder).message
    change_settings(folder, model_type="distilbert")  # known, without a causal language model
    assert "modeling_x.XForCausalLM" in failure_of(folder).message
    change_settings(folder, model_type="llama")
    assert check(folder) == []


def test_an_unknown_type_is_refused(model: Callable[..., Path]) -> None:
    failure = failure_of(model(model_type="llama-of-tomorrow"))
    assert "does not know the model_type 'llama-of-tomorrow'" in failure.message


def test_settings_that_transformers_refuses_are_a_sentence(model: Callable[..., Path]) -> None:
    failure = failure_of(model(intermediate_size="wide"))
    assert "transformers cannot load the base model" in failure.message


@pytest.mark.parametrize("kind", ["t5", "bart", "mbart", "pegasus", "marian", "whisper"])
def test_encoder_decoders_are_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(FailureError, match="has an encoder and a decoder"):
        check_settings(tmp_path, ())


@pytest.mark.parametrize(
    "kind", ["distilbert", "albert", "deberta-v2", "modernbert", "clip", "vit"]
)
def test_types_without_a_causal_language_model_are_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(FailureError, match="is not a causal language model"):
        check_settings(tmp_path, ())


HEADS = (
    *("LlamaForSequenceClassification", "LlamaForTokenClassification", "LlamaForQuestionAnswering"),
    *("LlamaRewardModel", "LlamaForMultipleChoice", "MyRewardModelForCausalLMWithValueHead"),
)


@pytest.mark.parametrize("architecture", HEADS)
def test_other_heads_are_refused(architecture: str, model: Callable[..., Path]) -> None:
    """Also if the embeddings are the head, so that no weight is missing."""
    folder = model("tied llama", architectures=[architecture])
    change_weights(folder, lambda tensors: tensors.update({"score.weight": torch.ones(2, 32)}))
    failure = failure_of(folder)
    assert architecture in failure.message
    assert failure.lines == ["score.weight"]


@pytest.mark.parametrize(
    "names", [None, [], ["LlamaForCausalLM"], ["AcmeForCausalLM"], ["LlamaModel"]]
)
def test_a_complete_model_passes_whatever_its_class_is_called(
    names: list[str] | None, model: Callable[..., Path]
) -> None:
    assert check(model("tied llama", architectures=names)) == []


# --- causality ------------------------------------------------------------------------------------

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "electra": ("electra", {"embedding_size": 32}),
    "xlm-roberta": ("xlm-roberta", {}),
    "megatron-bert": ("megatron-bert", {}),
    "roformer": ("roformer", {}),
    "bidirectional gemma": ("gemma3_text", {"use_bidirectional_attention": True}),
}
# The first ones run with every commit, the others in the full suite.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in [*ENCODERS][3:]]


@pytest.mark.parametrize("name", [*[*ENCODERS][:3], *SLOW])
def test_encoders_are_refused(name: str, tmp_path: Path) -> None:
    architectures.model_of(*ENCODERS[name]).save_pretrained(tmp_path)
    failure = failure_of(tmp_path)
    assert "is not a causal language model" in failure.message
    assert "depends on the tokens after it" in failure.message


def test_a_decoder_of_a_bert_passes(tmp_path: Path) -> None:
    architectures.model_of("bert", {"is_decoder": True}).save_pretrained(tmp_path)
    assert check(tmp_path) == []


def test_a_llama_that_is_made_bidirectional_is_refused(model: Callable[..., Path]) -> None:
    assert "is_causal" in (failure_of(model(is_causal=False)).hint or "")


def test_the_random_numbers_of_the_training_do_not_change(model: Callable[..., Path]) -> None:
    folder = model()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    check(folder)
    assert torch.equal(before, torch.random.get_rng_state())


# --- what loads correctly passes ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_each_architecture_passes_and_is_tested(name: str, saved: Callable[[str], Path]) -> None:
    assert check(saved(name)) == []


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "mamba, which has no attention"])
def test_the_main_kinds_pass(name: str, saved: Callable[[str], Path]) -> None:
    assert check(saved(name)) == []


def test_harmless_extras_pass(model: Callable[..., Path]) -> None:
    folder = model("gpt2")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):  # the original GPT-2 has no prefix, and saved its masks
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    change_weights(folder, change)
    assert check(folder) == []


def test_stored_and_missing_tied_heads_pass(tmp_path: Path) -> None:
    for are_equal in (True, False):
        architectures.save_both_tied(tmp_path / str(are_equal), are_equal=are_equal)
        assert check(tmp_path / str(are_equal)) == []


VISION = {"hidden_size": 32, "intermediate_size": 48}
LARGER: dict[str, dict[str, Any]] = {  # models whose language model is trained
    "gemma3": {
        **VISION,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    },
    "qwen3_5": {**VISION, "depth": 1, "num_heads": 4, "out_hidden_size": 32},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGER)
def test_a_model_that_also_reads_images_passes(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    parts = {"text_config": dict(architectures.SMALL), "vision_config": LARGER[kind]}
    config = AutoConfig.for_model(kind, **parts)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    assert check(tmp_path) == []


@pytest.mark.slow
def test_layers_for_more_predicted_tokens_are_ignored(model: Callable[..., Path]) -> None:
    """As in DeepSeek-V3, whose files have one more layer, which transformers ignores."""
    folder = model("deepseek_v3", num_nextn_predict_layers=1)
    config = json.loads((folder / "config.json").read_text())
    last = config["num_hidden_layers"]

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layers.1." in name]:
            tensors[name.replace(".layers.1.", ".layers.61.")] = tensors[name].to(
                torch.float8_e4m3fn
            )

    assert last == 2
    change_weights(folder, change)
    assert check(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "mixtral", "gemma2", "gemma3_text"),
        *("gpt2", "gpt_neox", "phi3", "opt", "bloom", "olmo2", "mamba", "deepseek_v3", "gpt_oss"),
        *("falcon", "cohere", "granite", "glm4", "stablelm", "starcoder2", "smollm3", "jamba"),
    ],
)
def test_a_large_model_is_tested_with_a_small_copy(kind: str) -> None:
    from transformers import AutoConfig

    from finetune_trainer.base_check.causality import check_causality

    config = AutoConfig.for_model(kind)
    text = config.to_json_string()
    assert check_causality(config) is None
    assert config.to_json_string() == text


# --- the tokenizer --------------------------------------------------------------------------------


def write_vocabulary(folder: Path, size: int, padding: str | None = None) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {f"t{number}": number for number in range(size)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="t0")).save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "t1"} | ({"pad_token": padding} if padding else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_tokens_without_a_row_are_refused(model: Callable[..., Path]) -> None:
    folder = model()
    write_vocabulary(folder, 64)
    assert check(folder) == []
    write_vocabulary(folder, 66)
    failure = failure_of(folder)
    assert "tokens up to 65, but the embeddings have only 64 rows" in failure.message
    assert failure.lines == ["token 64 is 't64'", "token 65 is 't65'"]


def test_a_padding_token_needs_no_row(model: Callable[..., Path]) -> None:
    folder = model()
    write_vocabulary(folder, 65, padding="t64")
    assert check(folder) == []


# --- the training ---------------------------------------------------------------------------------


def test_a_training_refuses_before_it_loads_a_weight(tmp_path: Path) -> None:
    architectures.model_of("bert", {}).save_pretrained(tmp_path)
    seen: list[int] = []
    usual: dict[str, Any] = {"zero_stage": 1, "offload": "none", "ranks": 1, "is_frozen": False}
    with pytest.raises(FailureError, match="is not a causal language model"):
        load_for_training(
            *(tmp_path, "fp32"),
            **usual,
            progress=seen.append,
            inspect=inspection(read_base(tmp_path), print),
        )
    assert seen == []
