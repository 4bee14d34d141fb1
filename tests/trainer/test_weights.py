"""The published files, compared byte by byte with those of `save_pretrained` and peft."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.tasks import MethodRef
from finetune_trainer.engine import lora
from finetune_trainer.publishing.weight_files import TensorFile
from finetune_trainer.publishing.weights import write_model
from tests.trainer.architectures import ALL, model_of
from tests.trainer.one_rank import OneRank

pytestmark = pytest.mark.slow

SHARDS = "20KB"  # so that every model has several
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Each differs from the others in its files or in its adapted layers.
CHOSEN = (
    *("llama", "tied llama", "gpt2", "gpt_neox", "phi3", "mixtral", "qwen3_moe", "deepseek_v3"),
    *("gpt_oss", "jamba, with state and experts"),
)
CASES = [*((name, "bf16") for name in CHOSEN), ("llama", "fp32"), ("mixtral", "fp32")]


def made(name: str) -> Any:
    """A model whose weights, biases, norms, and saved buffers are random."""
    model = model_of(*ALL[name])
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) / 16)
    return model


def assert_same_files(found: Path, expected: Path) -> None:
    names = [
        sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        for root in (found, expected)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def load(folder: Path, precision: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[precision])


def published(engine: Any, folder: Path, base: Path, shards: str = SHARDS) -> list[str]:
    """Write the model, and return the details that were shown."""
    shown: list[str] = []
    write_model(engine, folder, base, shown.append, shards)
    return shown


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_full_fine_tune_has_the_files_of_save_pretrained(
    name: str, precision: str, tmp_path: Path
) -> None:
    made(name).save_pretrained(tmp_path / "base")
    model = load(tmp_path / "base", precision)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(tmp_path / "right", max_shard_size=SHARDS)
    shown = published(OneRank(model, precision), tmp_path / "found", tmp_path / "base")
    assert_same_files(tmp_path / "found", tmp_path / "right")
    assert len(list((tmp_path / "found").glob("model-*-of-*.safetensors"))) > 1
    assert shown[0] == "writing the model: 0 %"
    assert shown[-1] == "writing the model: 100 %"


def test_a_model_that_was_not_loaded_has_the_files_of_save_pretrained(tmp_path: Path) -> None:
    """transformers then reverses its default conversions."""
    model = made("mixtral")
    model.save_pretrained(tmp_path / "right", max_shard_size=SHARDS)
    published(OneRank(model), tmp_path / "found", tmp_path)
    assert_same_files(tmp_path / "found", tmp_path / "right")


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_merged_adapter_has_the_files_of_peft(name: str, precision: str, tmp_path: Path) -> None:
    made(name).to(torch.bfloat16).save_pretrained(tmp_path / "base", max_shard_size="15KB")
    model = adapted(load(tmp_path / "base", precision))
    write_like_peft(model, tmp_path / "base", tmp_path / "right", precision)
    published(OneRank(model, precision), tmp_path / "found", tmp_path / "base")
    assert_same_files(tmp_path / "found", tmp_path / "right")


def adapted(model: Any, targets: Sequence[str] = ()) -> Any:
    """The model with an adapter that changes all of its outputs."""
    method = MethodRef(type="lora", rank=4, alpha=12, targets=list(targets) or None)
    found: Any = lora.add_adapter(model, method, seed=1)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 8)
    return found


def write_like_peft(model: Any, base: Path, folder: Path, precision: str) -> None:
    """The same files from whole models in memory, without the trainer's code."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import save_file

    trained = {n: p.detach().float() for n, p in model.named_parameters() if p.requires_grad}
    weights = get_peft_model_state_dict(model, state_dict=trained)
    adapter = folder / "adapter"
    adapter.mkdir(parents=True)
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(contiguous, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.inference_mode = True
    config.base_model_name_or_path = ""
    for name in ("target_modules", "target_parameters"):
        if isinstance(getattr(config, name), set):
            setattr(config, name, sorted(getattr(config, name)))
    config.save_pretrained(adapter)
    merged = PeftModel.from_pretrained(load(base, "fp32"), str(adapter)).merge_and_unload()
    merged.to(DTYPES[precision]).save_pretrained(folder, max_shard_size=SHARDS)


def test_a_base_model_whose_files_lack_the_prefix_of_the_model(tmp_path: Path) -> None:
    """As the files of a model without a head, whose embeddings are the head here."""
    made("tied llama").model.save_pretrained(tmp_path / "base")
    config = made("tied llama").config
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path / "base")
    model = adapted(load(tmp_path / "base", "fp32"))
    write_like_peft(model, tmp_path / "base", tmp_path / "right", "fp32")
    published(OneRank(model), tmp_path / "found", tmp_path / "base")
    assert_same_files(tmp_path / "found", tmp_path / "right")


def test_a_small_model_is_one_file_and_chosen_layers_only_change(tmp_path: Path) -> None:
    made("llama").save_pretrained(tmp_path / "base")
    model = adapted(load(tmp_path / "base", "fp32"), ["q_proj"])
    published(OneRank(model), tmp_path / "found", tmp_path / "base", "5GB")
    from safetensors.torch import load_file

    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(tmp_path / "found" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)}


def test_a_frozen_weight_is_published(tmp_path: Path) -> None:
    model = made("llama")
    model.model.norm.weight.requires_grad_(False)
    model.save_pretrained(tmp_path / "right", max_shard_size=SHARDS)
    published(OneRank(model), tmp_path / "found", tmp_path)
    assert_same_files(tmp_path / "found", tmp_path / "right")


def test_a_weight_that_the_base_model_lacks_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made("llama").save_pretrained(tmp_path / "base")
    model = adapted(load(tmp_path / "base", "fp32"))
    weights = load_file(tmp_path / "base" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.norm\.weight is not in the files"):
        published(OneRank(model), tmp_path / "found", tmp_path / "base")


def test_a_file_of_all_types_is_that_of_the_library(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    kinds = [torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn]
    kinds += [torch.int16, torch.uint16, torch.float16, torch.bfloat16, torch.int32, torch.uint32]
    kinds += [torch.float32, torch.float64, torch.int64, torch.uint64]
    tensors = {
        f"{name}.{kind}": torch.arange(6).reshape(2, 3).to(kind)
        for kind in kinds
        for name in ("é", "b", "B", "10", "9", 'quo"te')
    }
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "right", metadata={"format": "pt"})
    with TensorFile(tmp_path / "found", tensors) as file:
        for name in tensors:
            file.write(name, tensors[name])
    assert (tmp_path / "found").read_bytes() == (tmp_path / "right").read_bytes()


def test_a_file_refuses_a_missing_tensor_and_another_shape(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with (
        pytest.raises(ValueError, match="b was not written"),
        TensorFile(tmp_path / "x", tensors) as file,
    ):
        file.write("a", tensors["a"])
    with (
        pytest.raises(ValueError, match="instead of"),
        TensorFile(tmp_path / "x", tensors) as file,
    ):
        file.write("a", tensors["b"])
