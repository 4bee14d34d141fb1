"""Grades against values by hand, and JSON Schema against a schema of every keyword family."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_evaluation.grading import (
    exact_match,
    grades_of,
    pattern_grade,
    schema_grade,
    token_f1,
)
from finetune_evaluation.names import EXACT_MATCH, PATTERN, SCHEMA, TOKEN_F1


@pytest.mark.parametrize(
    ("answer", "reference", "grade"),
    [
        (" yes", "yes", 1),
        ("yes\n", " yes ", 1),
        ("Yes", "yes", 0),
        ("yes.", "yes", 0),
        ("", " ", 1),
        ("a b", "a  b", 0),
    ],
)
def test_exact_match(answer: str, reference: str, grade: float) -> None:
    assert exact_match(answer, reference) == grade


@pytest.mark.parametrize(
    ("answer", "reference", "grade"),
    [
        ("the quick fox", "the quick fox", 1),
        ("The quick, fox!", "the quick fox", 1),
        ("fox quick the", "the quick fox", 1),
        ("the cat", "the quick fox", 2 * 1 / 5),  # one of two words, one of three
        ("the the the", "the fox", 2 * 1 / 5),  # a word counts as often as the reference has it
        ("no", "yes", 0),
        ("", "yes", 0),
        ("yes", "", 0),
        ("...", "", 1),
        ("Straße 9", "STRASSE 9", 1),
        ("über uns", "über alles", 1 / 2),
    ],
)
def test_token_f1(answer: str, reference: str, grade: float) -> None:
    assert math.isclose(token_f1(answer, reference), grade)


words = st.text("abc \n.", max_size=12)


@given(words, words)
def test_token_f1_is_symmetric_and_a_share(first: str, second: str) -> None:
    grade = token_f1(first, second)
    assert 0 <= grade <= 1
    assert grade == token_f1(second, first)
    assert token_f1(first, first) == 1


def test_a_pattern_is_found_anywhere() -> None:
    grade = pattern_grade(r"\b\d{4}-\d{2}\b")
    assert grade("due 2026-11, net", "") == 1
    assert grade("due soon", "") == 0


def test_a_pattern_that_cannot_be_compiled_is_named() -> None:
    with pytest.raises(ValueError, match="not a regular expression: missing"):
        pattern_grade("a(")


def test_a_pattern_that_takes_forever_does_not_match() -> None:
    grade = pattern_grade(r"^(a|a|aa)+$")
    started = time.monotonic()
    assert grade("a" * 60 + "!", "") == 0
    assert time.monotonic() - started < 60


INVOICE = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1},
    },
    "required": ["total", "currency"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "string", "pattern": "^[a-z]+$"}},
}


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ('{"total": 9.5, "currency": "EUR"}', 1),
        ('  {"total": 0, "currency": "USD", "lines": ["a"]}\n', 1),
        ('{"total": -1, "currency": "EUR"}', 0),
        ('{"total": 1, "currency": "CHF"}', 0),
        ('{"total": 1}', 0),
        ('{"total": 1, "currency": "EUR", "more": 1}', 0),
        ('{"total": 1, "currency": "EUR", "lines": ["A"]}', 0),
        ('{"total": 1, "currency": "EUR"', 0),
        ("Here is the invoice: {}", 0),
        ("[" * 5000 + "]" * 5000, 0),
        ("1e999", 0),
        ("", 0),
    ],
)
def test_a_schema(answer: str, grade: float) -> None:
    assert schema_grade(INVOICE)(answer, "") == grade


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([], "an object"),
        ("x", "an object"),
        ({"type": "invoice"}, "not a JSON Schema: 'invoice' is not valid"),
        ({"properties": {"a": {"$ref": "https://x.test/a.json"}}}, "refers to https://x.test/a"),
        ({"items": {"$dynamicRef": "other.json#a"}}, "refers to other.json"),
        ({"$ref": "file:///etc/passwd"}, "refers to file:///etc/passwd"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_before_a_model_is_loaded(
    schema: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        schema_grade(schema)


def test_the_grades_of_an_evaluation() -> None:
    assert [*grades_of(None, None)] == [EXACT_MATCH, TOKEN_F1]
    assert [*grades_of("x", {})] == [EXACT_MATCH, TOKEN_F1, PATTERN, SCHEMA]
    assert [*grades_of(None, False)] == [EXACT_MATCH, TOKEN_F1, SCHEMA]
