"""Base models' tokenizers give the tokens of transformers' own, which servers use."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from finetune_data.errors import BaseModelError
from finetune_data.read.examples import COMPLETION, Conversation, Row
from finetune_data.tokenize.chats.source import NO_DEFAULT, find_template
from finetune_data.tokenize.loading import load_tokenizer
from tests.data.builders import TEXTS, encoded, write_json, write_tokenizer

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|end|>"]
PROMPTS = ["the quick brown fox", " lazy  dog\n", "yes</s>no", "maybe <|end|> ünï 東", "\n\n###"]


def byte_level() -> Tokenizer:
    """As of GPT-2, Llama 3, and Qwen."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(made, trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=SPECIAL))


def byte_fallback() -> Tokenizer:
    """As of Llama 2 and Mistral: a space before every text."""
    pieces = ["▁", "\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return trained(made, trainers.BpeTrainer(special_tokens=[*SPECIAL, *pieces]), bytes_too=True)


def replaced_spaces() -> Tokenizer:
    """As of Gemma: spaces are marks, and none is added."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    return trained(made, trainers.BpeTrainer(special_tokens=[*SPECIAL, *pieces]), bytes_too=True)


def unigram() -> Tokenizer:
    """As of T5."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    return trained(made, trainer)


def trained(made: Tokenizer, trainer: Any, *, bytes_too: bool = False) -> Tokenizer:
    trainer.show_progress = False
    made.train_from_iterator(TEXTS, trainer)
    if bytes_too:  # tokens of the vocabulary, which are no added tokens
        written = json.loads(made.to_str())
        written["added_tokens"] = [it for it in written["added_tokens"] if it["content"] in SPECIAL]
        made = Tokenizer.from_str(json.dumps(written))
    return made


KINDS: dict[str, tuple[Callable[[], Tokenizer], str, str | None]] = {
    "gpt2": (byte_level, "gpt2", "GPT2Tokenizer"),
    "qwen2": (byte_level, "qwen2", "Qwen2Tokenizer"),
    "llama 3": (byte_level, "llama", "PreTrainedTokenizerFast"),
    "llama 3 by another class": (byte_level, "llama", "LlamaTokenizerFast"),
    "llama 2": (byte_fallback, "llama", "LlamaTokenizer"),
    "llama 2 without a class": (byte_fallback, "llama", None),
    "mistral": (byte_fallback, "mistral", "LlamaTokenizerFast"),
    "gemma": (replaced_spaces, "gemma2", "GemmaTokenizerFast"),
    "t5": (unigram, "llama", "T5TokenizerFast"),
    "unknown class": (byte_level, "qwen3", "AcmeTokenizer"),
}


@cache
def serialized(make: Callable[[], Tokenizer]) -> str:
    return make().to_str()


def write_model(folder: Path, kind: str, *, processor: str | None = None, **settings: Any) -> Path:
    make, model_type, named = KINDS[kind]
    made = Tokenizer.from_str(serialized(make))
    if processor is not None:
        numbers = [(text, made.token_to_id(text)) for text in ("<s>", "</s>")]
        made.post_processor = processors.TemplateProcessing(
            single=processor, special_tokens=numbers
        )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    written = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    written |= {"tokenizer_class": named} if named else {}
    write_json(folder / "tokenizer_config.json", written | settings)
    config = {"model_type": model_type, "vocab_size": made.get_vocab_size()}
    write_json(folder / "config.json", config)
    return folder


def server(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def contexts(folder: Path) -> list[list[int]]:
    """The tokens before the completion of each prompt."""
    rows = [Row(1, prompt, "yes") for prompt in PROMPTS]
    found = encoded(load_tokenizer(folder, "m"), *rows)
    return [it.tokens[: it.roles.index(bytes([COMPLETION]))] for it in found]


@pytest.mark.parametrize("processor", [None, "<s> $A", "<s> $A </s>"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_tokens_that_a_server_gives_it(
    tmp_path: Path, kind: str, processor: str | None
) -> None:
    for add in ({}, {"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True}):
        folder = write_model(tmp_path / str(add), kind, processor=processor, **add)
        theirs = server(folder)
        assert contexts(folder) == [theirs(prompt).input_ids for prompt in PROMPTS]
        assert load_tokenizer(folder, "m").eos == theirs.eos_token_id


def test_the_class_of_the_model_type_does_not_lose_bytes(tmp_path: Path) -> None:
    """Without a class in tokenizer_config.json, a Llama has the rules of Llama 2."""
    folder = write_model(tmp_path, "llama 3", processor="<s> $A")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    write_json(folder / "tokenizer_config.json", settings)
    right = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert contexts(folder) == [right.encode(prompt).ids for prompt in PROMPTS]


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "acme"])
def test_code_of_a_tokenizer_never_runs(tmp_path: Path, model_type: str) -> None:
    settings = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    folder = write_model(tmp_path, "qwen2", processor="<s> $A", tokenizer_class="Evil", **settings)
    write_json(folder / "config.json", {"model_type": model_type, "vocab_size": 400, **settings})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\n")
    right = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert contexts(folder) == [right.encode(prompt).ids for prompt in PROMPTS]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "config", [{"tokenizer_class": "AcmeTokenizerFast"}, {"hidden_act": 3}, {"x": {"y": []}}]
)
def test_settings_that_transformers_refuses_do_not_matter_next_to_the_file(
    tmp_path: Path, config: dict[str, object]
) -> None:
    folder = write_model(tmp_path, "llama 3", tokenizer_class=None)
    write_json(folder / "config.json", {"model_type": "llama"} | config)
    right = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert contexts(folder) == [right.encode(prompt).ids for prompt in PROMPTS]


def test_an_end_token_outside_of_the_embedding_is_not_used(tmp_path: Path) -> None:
    """A class adds its usual end token to a vocabulary that lacks it."""
    folder = write_model(tmp_path, "gpt2")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "generation_config.json", {"eos_token_id": [-1, "x", True, 4, 2]})
    assert load_tokenizer(folder, "m").eos == 4


# --- chat templates ---

ANSWERS = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("files", "setting"),
    [
        ({}, f"config {ANSWERS}"),
        ({}, [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]),
        ({}, [{"name": "rag", "template": "a"}, {"name": "tool_use", "template": "b"}]),
        ({"chat_template": "file"}, f"config {ANSWERS}"),
        ({"chat_template": "file"}, [{"name": "tool_use", "template": "lost"}]),
        ({"chat_template": "file", "tool_use": "tools {{ tools }}"}, None),
        ({"chat_template": "file", "rag": "documents"}, f"config {ANSWERS}"),
        ({"default": "one", "tool_use": "two"}, None),
        ({"chat_template": "file", "default": "one"}, None),
        ({"rag": "documents"}, None),
    ],
)
def test_the_template_is_the_one_that_transformers_chooses(
    tmp_path: Path, files: dict[str, str], setting: object
) -> None:
    settings = {"chat_template": setting} if setting else {}
    folder = write_model(tmp_path, "qwen2", **settings)
    write_templates(folder, files)
    theirs = server(folder)
    found = find_template(folder, settings)
    assert found is not None
    for tools, ours in ((None, found.default), (TOOLS, found.tools or found.default)):
        try:
            expected = theirs.get_chat_template(tools=tools)
        except ValueError:  # there is no default
            expected = NO_DEFAULT
        assert ours == expected


def write_templates(folder: Path, files: dict[str, str]) -> None:
    further = folder / "additional_chat_templates"
    further.mkdir()
    for name, text in files.items():
        place = folder if name == "chat_template" else further
        (place / f"{name}.jinja").write_text(text)


def test_a_default_in_the_configuration_remains_next_to_further_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "qwen2", chat_template=ANSWERS)
    write_templates(folder, {"tool_use": f"{{{{ tools }}}}{ANSWERS}"})
    tokenizer = load_tokenizer(folder, "m")
    talk = [{"role": "user", "content": "yes"}]
    plain, tools = (tokenizer.prompt(Conversation(1, talk, made)) for made in (None, TOOLS))
    assert isinstance(plain, list)
    assert isinstance(tools, list)
    assert len(plain) < len(tools)


# --- without tokenizer.json ---


def test_a_sentencepiece_model_alone_is_enough(tmp_path: Path) -> None:
    for kind, model_type, named, file in (
        ("bpe", "llama", "LlamaTokenizer", "tokenizer.model"),
        ("unigram", "llama", "T5Tokenizer", "spiece.model"),
        ("bpe", "gemma2", "GemmaTokenizer", "tokenizer.model"),
    ):
        for add in (True, False):
            folder = tmp_path / f"{named}-{add}"
            write_sentencepiece(folder / file, kind)
            settings = {"tokenizer_class": named, "add_bos_token": add}
            write_json(folder / "tokenizer_config.json", settings)
            write_json(folder / "config.json", {"model_type": model_type, "vocab_size": 400})
            theirs = server(folder)
            expected = [theirs(prompt).input_ids for prompt in PROMPTS]
            assert contexts(folder) == expected
            assert any(len(ids) > 3 for ids in expected)


def write_sentencepiece(path: Path, kind: str) -> None:
    import sentencepiece

    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS),
            model_writer=file,
            vocab_size=320 if kind == "bpe" else 300,
            model_type=kind,
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.model", base64.b64encode(b"yes") + b" 0\n", "tokenizer.model, has tiktoken"),
        ("tekken.json", b"{}", "tekken.json, has the format of mistral-common"),
        (None, b"", "tokenizer.json is missing"),
        ("tokenizer.model", b"\xff" * 100, "transformers cannot load its tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, name: str | None, content: bytes, words: str
) -> None:
    folder = write_tokenizer(tmp_path)
    (folder / "tokenizer.json").unlink()
    if name is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(BaseModelError) as caught:
        load_tokenizer(folder, "tiny")
    assert words in caught.value.failure.message


def test_without_the_packages_for_sentencepiece_the_sentence_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    folder = write_tokenizer(tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"\n\x0e")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(BaseModelError, match="sentencepiece and protobuf"):
        load_tokenizer(folder, "tiny")


def test_added_tokens_are_known(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "qwen2")
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.add_tokens([AddedToken("<tool>", special=False)])
    made.save(str(folder / "tokenizer.json"))
    found = load_tokenizer(folder, "m").added_tokens
    assert {made.token_to_id(text) for text in ("<s>", "<tool>")} <= found
