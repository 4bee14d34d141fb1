"""A merged model is compared with the adapter over the base model before it is published."""

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_trainer.engine import lora
from finetune_trainer.publishing import comparison
from finetune_trainer.publishing.comparison import choose_rows, compare, compute_reference
from finetune_trainer.publishing.file_model import FileModel
from finetune_trainer.publishing.percent import Percent
from finetune_trainer.publishing.weights import write_model
from tests.trainer import support
from tests.trainer.architectures import ALL, save_both_tied
from tests.trainer.one_rank import OneRank
from tests.trainer.test_weights import CASES, SHARDS, adapted, load, made

ROWS = [[5, 9, 11, 60, 3, 7], [8, 8, 20], [40, 41, 42, 43, 44, 45, 46, 47]]


def quiet(_: str) -> None:
    """Show nothing."""


def prepared(name: str, precision: str, folder: Path) -> Any:
    """An engine with an adapter over a base model in `folder`."""
    made(name).to(torch.bfloat16).save_pretrained(folder, max_shard_size="15KB")
    return OneRank(adapted(load(folder, precision)), precision)


def check(engine: Any, folder: Path, base: Path) -> None:
    reference = compute_reference(engine, ROWS)
    write_model(engine, folder, base, quiet, SHARDS)
    compare(reference, engine, folder, base, quiet)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, kind) for name, kind in CASES if "jamba" not in name),
        ("gpt_oss", "fp32"),
        ("phi3", "fp32"),
    ],
)
def test_a_merged_model_is_the_adapter_over_the_base_model(
    name: str, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = prepared(name, precision, tmp_path / "base")
    reference = compute_reference(engine, ROWS)
    assert comparison._size(reference.adapted - reference.base).min() > 0.01
    check(engine, tmp_path / "model", tmp_path / "base")
    assert "warning" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_model_computes_from_its_files_as_in_memory(name: str, tmp_path: Path) -> None:
    made(name).save_pretrained(tmp_path, max_shard_size="15KB")
    model = load(tmp_path, "fp32").eval()
    files = FileModel(tmp_path, model, "fp32")
    shown: list[str] = []
    found = files.last_logits(ROWS, torch.device("cpu"), Percent("reading", shown.append))
    assert shown[0] == "reading: 0 %"
    assert shown[-1] == "reading: 100 %"
    for row, logits in zip(ROWS, found, strict=True):
        with torch.no_grad():
            right = model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(logits, right, rtol=1e-4, atol=1e-4)
    assert all(parameter.is_meta for parameter in files._model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("weight", ["self_attn.o_proj", "mlp.down_proj"])
def test_a_weight_that_was_merged_wrongly_is_refused_with_both_numbers(
    precision: str, weight: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base, folder = tmp_path / "base", tmp_path / "model"
    engine = prepared("llama", precision, base)
    reference = compute_reference(engine, ROWS)
    write_model(engine, folder, base, quiet)
    compare(reference, engine, folder, base, quiet)
    written = load_file(folder / "model.safetensors")
    name = f"model.layers.1.{weight}.weight"
    written[name] = load(base, precision).state_dict()[name].clone()  # as if it was not merged
    save_file(written, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FailureError) as caught:
        compare(reference, engine, folder, base, quiet)
    failure = caught.value.failure
    assert failure.code == Reason.BASE_MODEL_INVALID
    error = comparison._size(_logits(folder, precision) - reference.adapted).median()
    moved = comparison._size(reference.adapted - reference.base).median()
    assert f"differ by {error:.2g} " in failure.message
    assert f"moved by {moved:.2g};" in failure.message
    assert "method.targets" in (failure.hint or "")


def _logits(folder: Path, precision: str) -> torch.Tensor:
    model = load(folder, precision).eval()
    files = FileModel(folder, model, precision)  # type: ignore[arg-type]
    return files.last_logits(ROWS, torch.device("cpu"), Percent("", quiet))


@pytest.mark.slow
def test_an_adapter_that_the_model_never_computes_is_refused(tmp_path: Path) -> None:
    """Jamba reads the weights of a layer without calling it, so that only merging adds to them."""
    engine = prepared("jamba, with state and experts", "fp32", tmp_path / "base")
    with pytest.raises(FailureError, match="cannot be merged"):
        check(engine, tmp_path / "model", tmp_path / "base")


def test_an_adapter_of_a_head_that_is_the_embeddings_is_refused(tmp_path: Path) -> None:
    """If the check before the training did not find it."""
    from peft import LoraConfig, get_peft_model

    made("tied llama").save_pretrained(tmp_path / "base")
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(load(tmp_path / "base", "fp32"), config, autocast_adapter_dtype=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 4)
    with pytest.raises(FailureError, match="cannot be merged"):
        check(OneRank(model), tmp_path / "model", tmp_path / "base")


def test_a_head_that_the_config_calls_tied_but_the_files_hold_stays_a_head(tmp_path: Path) -> None:
    """Trained in full, and with an adapter on it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    save_both_tied(tmp_path / "base", are_equal=False)
    tokens = torch.tensor([ROWS[0]])
    model = load(tmp_path / "base", "fp32")
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
        right = model.eval()(input_ids=tokens).logits
    write_model(OneRank(model), tmp_path / "full", tmp_path / "base", quiet)
    published = AutoModelForCausalLM.from_pretrained(tmp_path / "full").eval()
    assert not published.config.tie_word_embeddings
    with torch.no_grad():
        torch.testing.assert_close(published(input_ids=tokens).logits, right)

    engine = OneRank(adapted(load(tmp_path / "base", "fp32"), ["lm_head", "q_proj"]))
    check(engine, tmp_path / "lora", tmp_path / "base")
    published = AutoModelForCausalLM.from_pretrained(tmp_path / "lora").eval()
    over = PeftModel.from_pretrained(
        load(tmp_path / "base", "fp32"), str(tmp_path / "lora" / "adapter")
    ).eval()
    with torch.no_grad():
        found = [model(input_ids=tokens).logits for model in (published, over)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", [["lm_head"], ["lm_head", "q_proj"], ["embed_tokens"]])
def test_a_tied_layer_is_refused_before_the_training(targets: list[str]) -> None:
    with pytest.raises(FailureError):
        adapted(support.tiny_llama(tied=True), targets)
    by_identity = support.tiny_llama()
    by_identity.lm_head.weight = by_identity.model.embed_tokens.weight
    with pytest.raises(FailureError):
        adapted(by_identity, targets)


def test_all_linear_layers_leave_out_a_tied_head(tmp_path: Path) -> None:
    for tied in (True, False):
        model = adapted(support.tiny_llama(tied=tied))
        assert not any("lm_head.lora" in name for name, _ in model.named_parameters())
        assert lora.is_adapted(model)


def test_a_model_that_cannot_be_compared_is_published_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = prepared("llama", "fp32", tmp_path / "base")
    monkeypatch.setattr(FileModel, "_compute", lambda self, rows, place: 1 / 0)
    check(engine, tmp_path / "model", tmp_path / "base")
    assert "warning: the merged model was not compared" in capsys.readouterr().out


def test_the_rows_are_from_different_examples() -> None:
    split = support.split_of(support.random_examples(9, seed=1, longest=60))
    rows = choose_rows(split)
    assert len(rows) == comparison.ROWS
    assert all(0 < len(row) <= comparison.TOKENS for row in rows)
    assert choose_rows(support.split_of([([5], [6, 2])])) == [[5, 6, 2]]
