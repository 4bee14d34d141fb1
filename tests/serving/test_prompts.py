"""What the model is given is what stood before a completion in training, and ends where it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_data.read.examples import COMPLETION, Row
from finetune_data.tokenize.loading import load_tokenizer
from finetune_serving.completion.local_model import LocalModel
from finetune_serving.completion.prompts import of_messages, of_text, with_separator
from tests.data.builders import encoded, write_json, write_tokenizer

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}:{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("text", ["the fox ->", "", "two\n\n###\n\n", "a </s> in it", " lazy "])
def test_a_prompt_has_the_tokens_that_it_had_in_training(
    tmp_path: Path, kind: str, text: str
) -> None:
    folder = write_tokenizer(tmp_path, kind=kind, bos_token="<s>", has_start=True)
    tokenizer = load_tokenizer(folder, "m")
    found = of_text(tokenizer, text, LocalModel("m", folder))
    for completion in ("yes no", " maybe", "x"):
        [example] = encoded(tokenizer, Row(1, text, completion))
        start = example.roles.index(bytes([COMPLETION]))
        assert found.tokens == example.tokens[:start]
        assert example.tokens[-1] in found.end_tokens


@pytest.mark.slow
def test_a_chat_is_given_as_an_inference_server_gives_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = write_tokenizer(
        tmp_path,
        chat_template=TEMPLATE,
        tokenizer_class="PreTrainedTokenizerFast",
    )
    talk = [("system", "no fox"), ("user", "quick?"), ("assistant", "yes"), ("user", "lazy?")]
    written = [{"role": role, "content": text} for role, text in talk]
    found = of_messages(load_tokenizer(folder, "m"), written, LocalModel("m", folder))
    theirs = AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(written, add_generation_prompt=True, return_dict=False)
    assert found.tokens == expected
    assert found.end_tokens == {theirs.convert_tokens_to_ids("</s>")}


@pytest.mark.parametrize(("written", "ends"), [(5, {1, 5}), ([7, 8], {1, 7, 8}), (None, {1})])
def test_the_models_own_end_tokens_end_it_too(
    tmp_path: Path, written: object, ends: set[int]
) -> None:
    folder = write_tokenizer(tmp_path)
    write_json(folder / "generation_config.json", {"eos_token_id": written})
    # 1 is </s>, with which every row of training ended
    assert of_text(load_tokenizer(folder, "m"), "a", LocalModel("m", folder)).end_tokens == ends


CHATML = (
    "{% for message in messages %}<s>{{ message.role }}:{{ message.content }}<unk>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


@pytest.mark.parametrize(
    ("manifest", "ends"),
    [
        (None, {1}),  # no model of ours: what a server knows, and nothing else
        ({"kind": "dataset"}, {1}),
        ({"kind": "model", "endTokens": [1]}, {1}),
        ({"kind": "model"}, {1, 2}),  # an earlier version wrote no end tokens: the template's own
    ],
)
def test_a_chat_ends_where_a_server_ends_it(
    tmp_path: Path, manifest: dict[str, object] | None, ends: set[int]
) -> None:
    folder = write_tokenizer(tmp_path, chat_template=CHATML)
    if manifest is not None:
        write_json(folder / "manifest.json", manifest)
    found = of_messages(
        load_tokenizer(folder, "m"), [{"role": "user", "content": "yes"}], LocalModel("m", folder)
    )
    assert found.end_tokens == ends


def test_an_adapter_ends_where_its_own_model_does(tmp_path: Path) -> None:
    """Its base model was not trained to end there."""
    base = write_tokenizer(tmp_path / "base", chat_template=CHATML)
    adapter = tmp_path / "model" / "adapter"
    adapter.mkdir(parents=True)
    write_json(adapter.parent / "manifest.json", {"kind": "model", "endTokens": [2, 1]})
    source = LocalModel("m", base, adapter)
    found = of_messages(load_tokenizer(base, "m"), [{"role": "user", "content": "yes"}], source)
    assert found.end_tokens == {1, 2}


@pytest.mark.parametrize(
    ("text", "separator", "wanted"),
    [
        ("a", "", "a"),
        ("a", " ->", "a ->"),
        ("a ->", " ->", "a ->"),
        ("a -> ", " ->", "a ->"),
        ("a\n\n###", "\n\n###\n\n", "a\n\n###\n\n"),
        ("a ###", "\n\n###\n\n", "a\n\n###\n\n"),
        ("a", "\n", "a\n"),
        ("", " ->", " ->"),
    ],
)
def test_a_prompt_ends_with_the_separator_once(text: str, separator: str, wanted: str) -> None:
    assert with_separator(text, separator) == wanted
