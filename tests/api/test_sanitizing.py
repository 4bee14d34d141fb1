"""Foreign text for terminals and logs. The oracle for what is invisible is Unicode's own data."""

import json
import re
import unicodedata
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.text.sanitizing import MOST_MARKS, is_deceptive, sanitize, sanitize_serialized

HOSTILE = [
    *map(chr, range(0x20)),
    "\x7f",
    *map(chr, range(0x80, 0xA0)),
    *"\u200b\u200e\u200f\u061c\u2060\u2061\u2066\u2067\u2068\u2069\u202a\u202b\u202c\u202d\u202e",
    *"\u2028\u2029\ufeff\u00ad\u034f\u115f\u1160\u180e\u3164\uffa0\ufff9\ud800\udfff\ue000",
    *"\U000e0001\U000e0041\U000e007f\U000e0100\ufe0f",
]


@pytest.mark.parametrize("character", HOSTILE, ids=ascii)
def test_a_deceptive_character_becomes_visible(character: str) -> None:
    text = f"a{character}b"
    assert is_deceptive(character)
    assert sanitize(text) == f"a{ascii(character)[1:-1]}b"
    assert sanitize(sanitize(text)) == sanitize(text)


def test_unicode_has_no_other_characters_of_the_kinds_that_deceive() -> None:
    """Controls, formats, surrogates, private ones, and separators of lines."""
    kinds = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    for character in map(chr, chain(range(0x20000), range(0xE0000, 0xE0200))):
        if unicodedata.category(character) in kinds:
            assert is_deceptive(character), ascii(character)
        elif unicodedata.category(character) == "Zs":
            assert not is_deceptive(character), ascii(character)


@pytest.mark.parametrize(
    "text",
    [
        "plain, with \\x1b in words",
        "naïve Straße 日本語\u3000テスト 한국어 עברית العربية ไทย हिन्दी",
        "10\u202f000\xa0€",
        "👩\u200d🚀 👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 1\ufe0f\u20e3 ©\ufe0f",
        "می\u200cخواهم क्\u200dष",
        "e\u0301 Z\u0351\u036b\u0343",
    ],
)
def test_the_texts_of_people_stay_as_they_are(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pay\u200dpal", "pay\\u200dpal"),
        ("\u200cadmin", "\\u200cadmin"),
        ("a\ufe0fb", "a\\ufe0fb"),
        ("字\u200d字", "字\\u200d字"),
        ("👍\U000e0067\U000e007f", "👍\\U000e0067\\U000e007f"),
    ],
)
def test_a_joiner_outside_of_emoji_and_words_is_shown(text: str, shown: str) -> None:
    assert sanitize(text) == shown


def test_stacked_marks_end_before_they_cover_other_lines() -> None:
    assert sanitize("e" + "\u0301" * 100).count("\u0301") == MOST_MARKS


def test_only_texts_with_lines_keep_them() -> None:
    text = "a\tb\r\nc\rd\n"
    assert sanitize(text) == "a\\tb\\r\\nc\\rd\\n"
    assert sanitize(text, keeps_lines=True) == "a\tb\nc\\rd\n"


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_whatever_the_text_no_deceptive_character_is_left_and_json_loses_nothing(text: str) -> None:
    joiners = re.compile("[\u200c\u200d\ufe0e\ufe0f]")
    assert not any(map(is_deceptive, joiners.sub("", sanitize(text))))
    written = sanitize_serialized(json.dumps({text: [text]}, ensure_ascii=False))
    assert not any(map(is_deceptive, written))
    # as a parser reads it: the halves of a surrogate pair next to each other are one character
    assert json.loads(written) == json.loads(json.dumps({text: [text]}))
