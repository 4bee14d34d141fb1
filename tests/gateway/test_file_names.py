"""The name of a stored file is harmless, and keeps the ending by which readers go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_data.read.sources import ENDINGS, PACKED, ending_of
from finetune_gateway.files import file_names
from finetune_gateway.files.file_names import has_lines, is_safe_name, safe_name


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("train.jsonl", "train.jsonl"),
        ("data/train.jsonl", "train.jsonl"),
        ("/home/anna/train.jsonl", "train.jsonl"),
        (r"C:\data\train.jsonl", "train.jsonl"),
        ("my data (2).jsonl", "my-data--2-.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("données.csv", "donn-es.csv"),
        ("folder/", "folder"),
        ("..", "file"),
        (".", "file"),
        ("", "file"),
        ("///", "file"),
        ("a/..", "file"),
        ("\udcff\x00\n", "---"),
    ],
)
def test_a_name_is_the_last_part_of_a_path_in_plain_characters(sent: str, stored: str) -> None:
    assert safe_name(sent) == stored


@given(st.text() | st.text(alphabet="./\\ab\n\x00é", max_size=400))
def test_every_name_is_one_part_of_a_key(text: str) -> None:
    name = safe_name(text)
    assert is_safe_name(name)
    assert safe_name(name) == name


@given(
    st.text(min_size=100, max_size=500), st.sampled_from(ENDINGS), st.sampled_from(["", *PACKED])
)
def test_a_long_name_keeps_its_ending(stem: str, ending: str, packed: str) -> None:
    name = safe_name("x" * 100 + stem.replace("/", "").replace("\\", "") + ending + packed)
    assert len(name) <= file_names.NAME_CHARACTERS
    assert ending_of(name) == ending
    assert name.endswith(ending + packed)


def test_the_endings_are_those_of_the_data_check() -> None:
    assert {*file_names.LINES, *file_names.OTHERS} == set(ENDINGS)
    assert file_names.PACKED == PACKED


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("train.jsonl", True),
        ("TRAIN.JSONL", True),
        ("train.ndjson", True),
        ("upload", True),
        ("paper.pdf", True),
        ("train.csv", False),
        ("train.xlsx", False),
        ("train.json", False),
        ("train.jsonl.gz", False),
        ("train.ZST", False),
    ],
)
def test_files_without_another_format_have_lines(name: str, lines: bool) -> None:
    assert has_lines(name) is lines
