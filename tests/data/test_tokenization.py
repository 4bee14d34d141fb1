"""Tokens and their roles: learned, prompt, or never predicted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.names import Reason
from finetune_data.errors import BaseModelError
from finetune_data.models.base_models import model_positions
from finetune_data.read.examples import COMPLETION, NO_LOSS, PROMPT, Row
from finetune_data.tokenize.loading import load_tokenizer
from finetune_data.tokenize.tokenizer import ExampleTokenizer
from tests.data.builders import encoded, write_json, write_tokenizer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ExampleTokenizer:
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("plain")), "tiny")


def decode(tokenizer: ExampleTokenizer, tokens: list[int]) -> str:
    return str(tokenizer._backend.decode(tokens, skip_special_tokens=False))


def ids(tokenizer: ExampleTokenizer, text: str) -> list[int]:
    return tokenizer._encoder.encode([text])[0]


def special(tokenizer: ExampleTokenizer, text: str) -> int:
    token = tokenizer._backend.token_to_id(text)
    assert token is not None
    return int(token)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@given(prompt=texts, completion=texts.filter(bool))
def test_the_roles_cover_exactly_prompt_and_completion(
    plain: ExampleTokenizer, prompt: str, completion: str
) -> None:
    tokenizer = plain
    [example] = encoded(tokenizer, Row(1, prompt, completion))
    end = special(tokenizer, "</s>")
    seen, learned = ids(tokenizer, prompt), ids(tokenizer, completion)
    if learned[-1] != end:
        learned = [*learned, end]
    start = [] if prompt else [end]
    assert example.tokens == [*start, *seen, *learned]
    roles = [NO_LOSS] * len(start) + [PROMPT] * len(seen) + [COMPLETION] * len(learned)
    assert example.roles == bytes(roles)


def test_prompt_and_completion_never_share_a_token(plain: ExampleTokenizer) -> None:
    """`qui` + `ck` stays two texts, though `quick` is one token."""
    assert len(ids(plain, "quick")) < len(ids(plain, "qui")) + len(ids(plain, "ck"))
    [example] = encoded(plain, Row(1, "qui", "ck"))
    assert example.tokens == [*ids(plain, "qui"), *ids(plain, "ck"), special(plain, "</s>")]


def test_an_end_token_in_the_text_of_a_completion_is_not_doubled(plain: ExampleTokenizer) -> None:
    written, added = encoded(plain, Row(1, "a", " yes</s>"), Row(2, "a", " yes"))
    assert written == added


def test_a_row_without_tokens_still_ends(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, bos_token="<s>")
    written = json.loads((folder / "tokenizer.json").read_text())
    written["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}
    write_json(folder / "tokenizer.json", written)
    found = encoded(load_tokenizer(folder, "tiny"), Row(1, " ", "\t"), Row(2, "", " "))
    assert [(one.tokens, one.roles) for one in found] == [
        ([0, 1], bytes([NO_LOSS, COMPLETION]))
    ] * 2


def test_special_tokens_in_a_text_are_those_tokens(plain: ExampleTokenizer) -> None:
    [example] = encoded(plain, Row(1, "<s>a", "b"))
    assert example.tokens[0] == special(plain, "<s>")
    assert example.roles[0] == PROMPT


def test_truncation_and_padding_of_tokenizer_json_are_ignored(plain: ExampleTokenizer) -> None:
    short, long = encoded(
        plain, Row(1, "a", "b"), Row(2, "a b c d e f g h", "the lazy dog jumps over")
    )
    assert len(short.tokens) == 3
    assert "jumps over" in decode(plain, long.tokens)


@pytest.mark.parametrize(
    ("settings", "empty", "full"),
    [
        ({"bos_token": "<s>"}, ["<s>"], []),
        # with tokenizer.json, only its post-processor counts, as in transformers
        ({"bos_token": "<s>", "add_bos_token": True}, ["<s>"], []),
        ({"bos_token": "<s>", "add_bos_token": False}, ["<s>"], []),
        ({}, ["</s>"], []),
    ],
)
def test_the_start_token_is_the_tokenizers_own(
    tmp_path: Path, settings: dict[str, object], empty: list[str], full: list[str]
) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, **settings), "tiny")
    for prompt, start in (("", empty), ("yes", full)):
        [example] = encoded(tokenizer, Row(1, prompt, " no"))
        expected = [special(tokenizer, text) for text in start]
        assert example.tokens[: len(expected)] == expected
        assert example.roles[: len(expected)] == bytes(len(expected))
        assert example.roles.count(NO_LOSS) == len(expected)


def test_tokens_of_a_post_processor_are_around_the_prompt(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    folder = write_tokenizer(tmp_path)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder, "tiny")
    [example] = encoded(tokenizer, Row(1, "yes", " no"))
    prompt, completion = ids(tokenizer, "yes"), ids(tokenizer, " no")
    assert example.tokens == [0, *prompt, 1, *completion, 1]
    roles = [NO_LOSS, *[PROMPT] * len(prompt), NO_LOSS, *[COMPLETION] * (len(completion) + 1)]
    assert example.roles == bytes(roles)


def test_a_completion_does_not_get_an_additional_space(tmp_path: Path) -> None:
    """SentencePiece adds a space to every text; the model would learn it after a prompt."""
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, kind="metaspace"), "tiny")

    def pieces(text: str) -> str:
        return "".join(tokenizer._backend.id_to_token(token) for token in ids(tokenizer, text))

    assert pieces("no") == "▁no"
    for prompt, completion, learned in (
        ("yes", "no", "no"),
        ("yes", " no", "▁no"),
        ("yes", "\nno", "\nno"),
        ("", "no", "▁no"),
    ):
        [example] = encoded(tokenizer, Row(1, prompt, completion))
        tokens = [
            tokenizer._backend.id_to_token(token)
            for token, role in zip(example.tokens, example.roles, strict=True)
            if role == COMPLETION
        ]
        assert "".join(tokens) == f"{learned}</s>"


def test_the_digest_changes_with_everything_that_changes_tokens(tmp_path: Path) -> None:
    one = load_tokenizer(write_tokenizer(tmp_path / "a"), "tiny").digest
    same = load_tokenizer(write_tokenizer(tmp_path / "b"), "other name").digest
    start = write_tokenizer(tmp_path / "c", bos_token="<s>", has_start=True)
    other = write_tokenizer(tmp_path / "d", kind="metaspace")
    assert one == same
    assert len({one, *(load_tokenizer(folder, "tiny").digest for folder in (start, other))}) == 3


def test_the_end_token_is_found_in_every_config_that_can_have_it(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path, eos_token=None)
    with pytest.raises(BaseModelError, match="end-of-sequence"):
        load_tokenizer(folder, "tiny")
    write_json(folder / "config.json", {"model_type": "llama", "eos_token_id": 5})
    assert load_tokenizer(folder, "tiny")._eos == 5
    write_json(folder / "generation_config.json", {"eos_token_id": [7, 5]})
    assert load_tokenizer(folder, "tiny")._eos == 7
    write_json(folder / "special_tokens_map.json", {"eos_token": {"content": "</s>"}})
    write_json(folder / "tokenizer_config.json", {})
    assert load_tokenizer(folder, "tiny")._eos == 1


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": {"type": "Nothing"}}', "[1]"])
def test_a_broken_tokenizer_is_a_sentence(tmp_path: Path, content: str) -> None:
    (write_tokenizer(tmp_path) / "tokenizer.json").write_text(content)
    with pytest.raises(BaseModelError) as caught:
        load_tokenizer(tmp_path, "tiny")
    assert caught.value.failure.code == Reason.BASE_MODEL_INVALID
    assert "tokenizer.json cannot be read" in caught.value.failure.message


def test_the_longest_sequence_is_read_from_the_config(tmp_path: Path) -> None:
    for config, expected in (
        ({}, None),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 4096, "n_positions": 1}, 4096),
        ({"text_config": {"max_position_embeddings": 8}}, 8),
        ({"max_position_embeddings": None}, None),
        ({"text_config": [1], "n_positions": 8}, 8),
    ):
        write_json(tmp_path / "config.json", config)
        assert model_positions(tmp_path) == expected


@pytest.mark.slow  # transformers takes four seconds to import
def test_a_tokenizer_without_tokenizer_json_is_converted_without_torch(tmp_path: Path) -> None:
    """GPT-2's old layout, in a process that has no torch."""
    from tokenizers import Tokenizer

    folder = write_tokenizer(tmp_path)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.model.save(str(folder))  # vocab.json and merges.txt
    (folder / "tokenizer.json").unlink()
    write_json(folder / "config.json", {"model_type": "gpt2", "vocab_size": 400})
    settings = {"eos_token": "</s>", "unk_token": "</s>", "tokenizer_class": "GPT2Tokenizer"}
    write_json(folder / "tokenizer_config.json", settings)
    program = (
        "import json, sys, pathlib; sys.modules['torch'] = None\n"
        "from finetune_data.tokenize.loading import load_tokenizer\n"
        f"tokenizer = load_tokenizer(pathlib.Path({str(folder)!r}), 'tiny')\n"
        "from finetune_data.read.examples import Row\n"
        "print(json.dumps(tokenizer.encode([Row(1, 'quick', ' yes')])[0][0].tokens))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    backend.no_truncation()
    backend.no_padding()
    expected = [backend.encode(text, add_special_tokens=False).ids for text in ("quick", " yes")]
    assert json.loads(ran.stdout.splitlines()[-1]) == [*expected[0], *expected[1], 1]


def test_the_tokens_of_a_character_are_readable_together(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path), "m")
    [example] = encoded(tokenizer, Row(1, "the 字👍é", "yes"))
    prompt = [t for t, role in zip(example.tokens, example.roles, strict=True) if role == PROMPT]
    readable = tokenizer.readable_texts(prompt)
    assert "".join(readable).replace("‥", "") == "the 字👍é"
    assert readable[-9:] == ["字", "‥", "‥", "👍", "‥", "‥", "‥", "é", "‥"]
    assert tokenizer.readable_texts(prompt[:-1])[-1] == tokenizer.texts(prompt)[-2]
