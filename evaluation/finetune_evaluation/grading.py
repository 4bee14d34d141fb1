"""Grades: a number from 0 to 1 for an answer. None of them asks a model."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import regex
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry

from finetune_api.wire import parse_json
from finetune_evaluation.names import EXACT_MATCH, PATTERN, SCHEMA, TOKEN_F1

# Grades an answer by its reference, both as they are.
Grade = Callable[[str, str], float]

PATTERN_SECONDS = 1.0
_WORD = re.compile(r"\w+")


def exact_match(answer: str, reference: str) -> float:
    """1 if both are equal without the whitespace around them, as OpenAI's tools compare labels."""
    return float(answer.strip() == reference.strip())


def token_f1(answer: str, reference: str) -> float:
    """The F1 of the words of an answer, in any order, as SQuAD grades free text.

    Words are sequences of letters and digits in lower case. Two texts that have no words are equal.
    """
    given, wanted = (Counter(_WORD.findall(text.casefold())) for text in (answer, reference))
    if not given or not wanted:
        return float(given == wanted)
    common = (given & wanted).total()
    return 2 * common / (given.total() + wanted.total())


def pattern_grade(pattern: str) -> Grade:
    """Whether a regular expression is found in the answer.

    Raises ValueError for one that cannot be compiled. An answer on which it takes longer than
    PATTERN_SECONDS does not match.
    """
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"the pattern is not a regular expression: {error}") from error

    def grade(answer: str, _: str) -> float:
        try:
            return float(compiled.search(answer, timeout=PATTERN_SECONDS) is not None)
        except TimeoutError:
            return 0.0

    return grade


def schema_grade(schema: Any) -> Grade:
    """Whether the answer is JSON that conforms to a JSON Schema, which may not refer to others.

    Raises ValueError for what is no JSON Schema.
    """
    if not isinstance(schema, Mapping | bool):
        raise ValueError("a JSON Schema is an object, or true or false")
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"this is not a JSON Schema: {error.message[:200]}") from error
    _check_references(schema)
    # An empty registry: nothing is downloaded for a $ref.
    validator: Validator = kind(schema, registry=Registry())

    def grade(answer: str, _: str) -> float:
        try:
            return float(validator.is_valid(parse_json(answer)))
        except ValueError:
            return 0.0

    return grade


def _check_references(schema: Any) -> None:
    """Raise ValueError for a reference that leads out of the schema, before a model is loaded."""
    for reference in re.findall(r'"\$(?:dynamicR|r)ef": "([^"]*)"', json.dumps(schema)):
        if not reference.startswith("#"):
            raise ValueError(f"the JSON Schema refers to {reference[:100]}: write it into the file")


def grades_of(pattern: str | None, schema: Any | None) -> dict[str, Grade]:
    """The grades by name: those of every evaluation, then the requested ones. Raises ValueError."""
    found: dict[str, Grade] = {EXACT_MATCH: exact_match, TOKEN_F1: token_f1}
    if pattern is not None:
        found[PATTERN] = pattern_grade(pattern)
    if schema is not None:
        found[SCHEMA] = schema_grade(schema)
    return found
