"""A published folder stops where the model has learned to, in transformers and in its files."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.publishing import tokenizer_files
from finetune_trainer.publishing.generation import generation_settings, write_end_tokens
from tests.data.builders import write_json, write_tokenizer
from tests.trainer.architectures import ALL, model_of

NOTHING = "{% for m in messages %}{{ m.content }}<unk>{% endfor %}"


def test_settings_that_forbid_the_end_are_dropped_and_others_stay() -> None:
    found = generation_settings(
        {
            "temperature": 0.6,
            "do_sample": True,
            "top_k": 0,
            "bos_token_id": "x",
            "pad_token_id": -1,
            "decoder_start_token_id": 3,
            "forced_eos_token_id": 4,
            "min_length": 30,
            "min_new_tokens": 5,
            "max_length": 0,
            "max_new_tokens": 64,
            "suppress_tokens": [7, 8, -1, "x", 100],
            "begin_suppress_tokens": [7],
            "bad_words_ids": [[7], [5, 7], [5]],
            "sequence_bias": [[[7], -10.0], [[5], 1.0]],
            "_from_model_config": True,
        },
        ends=[7],
        vocabulary=50,
    )
    assert found == {
        "temperature": 0.6,
        "do_sample": True,
        "top_k": 0,
        "max_new_tokens": 64,
        "suppress_tokens": [8],
        "bad_words_ids": [[5]],
        "sequence_bias": [[[5], 1.0]],
    }


HOSTILE: list[object] = [
    None,
    "not JSON",
    {"eos_token_id": "x", "bos_token_id": "y", "pad_token_id": -3},
    {"eos_token_id": 9999, "min_length": 30, "forced_eos_token_id": 5},
    {"suppress_tokens": "all", "begin_suppress_tokens": "all", "bad_words_ids": [["all"]]},
    {"max_new_tokens": -5, "early_stopping": 3},
    {"eos_token_id": [2], "min_new_tokens": 30, "max_length": 64},
]


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of(*ALL["llama"]).eval()


@pytest.mark.parametrize("written", HOSTILE)
def test_transformers_stops_where_the_model_has_learned_to(
    written: object, model: Any, tmp_path: Path
) -> None:
    """The end is a token that the model writes, so that it must stop there."""
    import torch
    from transformers import AutoModelForCausalLM

    prompt = torch.tensor([[5, 6, 7]])
    free = model.generate(prompt, max_new_tokens=12, eos_token_id=None, do_sample=False)[0, 3:]
    tokens = free.tolist()
    place = next(i for i in range(3, 12) if tokens[i] not in tokens[:i])
    end = tokens[place]
    base, folder = tmp_path / "base", tmp_path / "model"
    base.mkdir()
    if isinstance(written, str):
        (base / "generation_config.json").write_text(written)
    elif written is not None:
        text = json.dumps(written).replace('"all"', f"[{end}]" if "bad" not in written else "0")
        (base / "generation_config.json").write_text(text)
    model.save_pretrained(folder)
    write_end_tokens(base, folder, [end, 2])
    for name in ("generation_config.json", "config.json"):
        assert json.loads((folder / name).read_text())["eos_token_id"] == [end, 2]
    published = AutoModelForCausalLM.from_pretrained(folder)
    made = published.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, 3:]
    assert made.tolist() == tokens[: place + 1]


def test_a_config_that_permits_one_number_has_the_learned_end(tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("xglm", vocab_size=50)
    config.save_pretrained(tmp_path)
    write_end_tokens(tmp_path / "none", tmp_path, [7, 2])
    found = AutoConfig.from_pretrained(tmp_path)
    assert found.eos_token_id in (7, [7, 2])
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [7, 2]


def test_one_end_token_is_a_number_and_parts_of_a_config_agree(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "auto_map": {"AutoConfig": "evil.Evil"}}
    part = {"model_type": "gemma3_text", "eos_token_id": 1, "vocab_size": 50}
    write_json(tmp_path / "config.json", config | {"text_config": part})
    write_end_tokens(tmp_path / "none", tmp_path, [7])
    found = json.loads((tmp_path / "config.json").read_text())
    assert (found["eos_token_id"], found["text_config"]["eos_token_id"]) == (7, 7)
    assert "auto_map" not in found


# --- the tokenizer ---


def published_tokenizer(tmp_path: Path, end: int, **settings: object) -> Any:
    from transformers import AutoTokenizer

    base = write_tokenizer(tmp_path / "base", **settings)
    folder = tmp_path / "model"
    folder.mkdir()
    write_json(folder / "config.json", json.loads((base / "config.json").read_text()))
    tokenizer_files.write_tokenizer(base, folder, end)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "<unk>"),
        ({"chat_template": NOTHING}, "<unk>"),
        ({"eos_token": {"content": "</s>", "__type": "AddedToken"}}, "<unk>"),
        ({"chat_template": f"{NOTHING}{{{{ eos_token }}}}"}, "</s>"),
        ({"chat_template": [{"name": "rag", "template": "{{ eos_token }}"}]}, "</s>"),
        ({"pad_token": "<unk>"}, "</s>"),
        ({"eos_token": "<unk>"}, "<unk>"),
    ],
)
def test_the_tokenizer_ends_with_the_learned_token_unless_a_template_writes_the_old_one(
    tmp_path: Path, settings: dict[str, object], expected: str
) -> None:
    found = published_tokenizer(tmp_path, 2, **settings)  # 2 is <unk>
    assert found.eos_token == expected
    assert found.pad_token == settings.get("pad_token", "[PAD]")  # of tokenizer.json
    base = tmp_path / "base" / "tokenizer_config.json"
    if expected == "</s>":
        assert (tmp_path / "model" / base.name).read_bytes() == base.read_bytes()
    assert found("yes <unk>no</s>").input_ids == [
        *found("yes ").input_ids,
        2,
        *found("no").input_ids,
        1,
    ]


def test_a_template_in_a_file_can_write_the_old_token(tmp_path: Path) -> None:
    base = write_tokenizer(tmp_path / "base", chat_template=NOTHING)
    further = base / "additional_chat_templates"
    further.mkdir()
    (further / "tool_use.jinja").write_text("{{ eos_token }}")
    folder = tmp_path / "model"
    folder.mkdir()
    write_tokenizer(folder)
    tokenizer_files.write_tokenizer(base, folder, 2)
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "</s>"
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(folder)  # the default has got a file of its own
    assert found.get_chat_template(tools=[{}]) == "{{ eos_token }}"
    assert found.get_chat_template() == NOTHING


def test_a_template_for_processors_gets_a_file_that_tokenizers_read(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = write_tokenizer(tmp_path / "base")
    write_json(base / "chat_template.json", {"chat_template": NOTHING})
    folder = tmp_path / "model"
    folder.mkdir()
    write_json(folder / "config.json", json.loads((base / "config.json").read_text()))
    tokenizer_files.write_tokenizer(base, folder, 1)
    assert AutoTokenizer.from_pretrained(folder).chat_template == NOTHING
    assert AutoTokenizer.from_pretrained(base).chat_template is None


def test_a_token_of_the_vocabulary_does_not_become_a_control_token(tmp_path: Path) -> None:
    """Texts would be split at it from then on."""
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path / "plain"))
    end = plain("yes").input_ids[0]
    assert published_tokenizer(tmp_path, end).eos_token == "</s>"


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": None},  # a Llama has the class of Llama 2, which would lose bytes
        {"tokenizer_class": 5},
        {"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
        {"tokenizer_class": "Acme", "auto_map": {"AutoTokenizer": [None, "evil.Evil"]}},
    ],
)
def test_servers_use_the_file_of_a_tokenizer_as_the_training_did(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    from tokenizers import Tokenizer

    found = published_tokenizer(tmp_path, 1, **settings)
    right = Tokenizer.from_file(str(tmp_path / "base" / "tokenizer.json"))
    right.no_truncation()
    right.no_padding()
    for text in ("the quick brown fox", " ünï\n"):
        assert found(text).input_ids == right.encode(text).ids


def test_the_map_of_special_tokens_agrees(tmp_path: Path) -> None:
    base = write_tokenizer(tmp_path / "base")
    write_json(base / "special_tokens_map.json", {"eos_token": "</s>", "unk_token": "<unk>"})
    folder = tmp_path / "model"
    folder.mkdir()
    write_json(folder / "config.json", json.loads((base / "config.json").read_text()))
    tokenizer_files.write_tokenizer(base, folder, 0)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        assert json.loads((folder / name).read_text())["eos_token"] == "<s>"
