"""The demo's tokenizer, as the prepare Job reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.demo import dataset
from examples.demo.dataset import MODULES, Dataset
from examples.demo.tokenizer import BOS, CONTEXT, EOS, SPECIAL, VOCABULARY, write_tokenizer


@pytest.fixture(scope="module")
def folder(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ada")
    write_tokenizer(dataset.seen_texts(data), made)
    (made / "config.json").write_text(f'{{"vocab_size": {VOCABULARY}}}')
    return made


def test_decoding_restores_any_text(folder: Path, data: Dataset) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [row.prompt + row.completion for row in (*data.base[:200], *data.validation)]
    for text in [*texts, "  two  spaces\n\n\ttab", "naïve 字 🙂", ""]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.get_vocab_size() == VOCABULARY


def test_the_same_texts_give_the_same_bytes(folder: Path, data: Dataset, tmp_path: Path) -> None:
    write_tokenizer(dataset.seen_texts(data), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_prepare_gives_every_row_a_start_an_end_and_room(folder: Path, data: Dataset) -> None:
    from finetune_data.read.examples import Row
    from finetune_data.read.findings import Finding
    from finetune_data.tokenize.loading import load_tokenizer

    tokenizer = load_tokenizer(folder, "ada")
    texts = [*data.base, *data.training, *data.validation]
    rows = [Row(line, text.prompt, text.completion) for line, text in enumerate(texts, 1)]
    for found in tokenizer.encode(rows):
        assert not isinstance(found, Finding)
        [encoded] = found
        assert encoded.tokens[0] == SPECIAL.index(BOS)
        assert encoded.tokens[-1] == SPECIAL.index(EOS)
        assert encoded.tokens.count(SPECIAL.index(EOS)) == 1
        assert len(encoded.tokens) <= CONTEXT


def test_every_module_is_one_token(folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for module in MODULES:
        assert len(tokenizer.encode(f" {module}", add_special_tokens=False).ids) == 1
