"""The data of the demo, from the standard library of the Python that runs the tests."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from examples.demo import dataset
from examples.demo.dataset import MODULES, SEPARATOR, Dataset, Row, build_dataset, fingerprint


def test_no_prompt_names_its_module_nor_any_of_the_ten(data: Dataset) -> None:
    named = re.compile("|".join(MODULES), re.IGNORECASE)
    for row in (*data.training, *data.validation):
        assert not named.search(row.prompt.removesuffix(SEPARATOR)), row


def test_prompts_end_with_the_separator_and_completions_start_with_a_space(data: Dataset) -> None:
    for row in (*data.training, *data.validation):
        assert row.prompt.endswith(SEPARATOR)
        assert row.prompt.count(SEPARATOR) == 1
        assert row.completion == f" {row.module}"
        assert row.module in MODULES


def test_there_are_at_least_300_validation_rows_of_all_ten_modules(data: Dataset) -> None:
    assert len(data.validation) >= 300
    assert {row.module for row in data.validation} == set(MODULES)
    assert {row.module for row in data.training} == set(MODULES)


def test_the_majority_share_is_about_a_tenth(data: Dataset) -> None:
    counts = Counter(row.module for row in data.validation)
    assert data.majority_share == max(counts.values()) / len(data.validation)
    assert 0.1 <= data.majority_share <= 0.13


def test_training_and_validation_share_no_prompt(data: Dataset) -> None:
    training = [fingerprint(row.prompt) for row in data.training]
    validation = [fingerprint(row.prompt) for row in data.validation]
    assert len(set(training)) == len(training)
    assert len(set(validation)) == len(validation)
    assert not set(training) & set(validation)


def test_the_base_data_contain_no_validation_text(data: Dataset) -> None:
    texts = "\n".join(fingerprint(row.completion) for row in data.base)
    unseen = [fingerprint(row.prompt.removesuffix(SEPARATOR)) for row in data.validation]
    long = [text for text in unseen if len(text.split()) >= 8]
    assert len(long) > 200
    assert [text for text in long if text in texts] == []
    assert not set(unseen) & {fingerprint(row.completion) for row in data.base}


def test_the_base_rows_have_no_prompt_and_fit_the_context(data: Dataset) -> None:
    assert len(data.base) > 1000
    for row in data.base:
        assert row.prompt == ""
        assert row.completion.isascii()
        assert 0 < len(row.completion) <= dataset.TEXT_CHARACTERS


def test_jsonl_has_an_object_with_prompt_and_completion_a_line() -> None:
    text = dataset.jsonl([Row('a "quoted"\n', " x"), Row("", "y")])
    assert [json.loads(line) for line in text.splitlines()] == [
        {"prompt": 'a "quoted"\n', "completion": " x"},
        {"prompt": "", "completion": "y"},
    ]


# --- the rules, on a small library ---


def write_library(folder: Path) -> None:
    for module in MODULES:
        package = folder / module
        package.mkdir()
        functions = "\n".join(
            f'def f{n}():\n    """The {n * n}th function about {module[::-1]} and {n}.\n\n'
            f'    >>> f{n}()\n    """\n'
            for n in range(12)
        )
        (package / "__init__.py").write_text(f'"""{module} is a module of ours."""\n{functions}')
    (folder / "xml" / "shared.py").write_text('def f():\n    """One text, two modules."""\n')
    (folder / "http" / "shared.py").write_text('def f():\n    """One  text: two MODULES"""\n')
    (folder / "http" / "named.py").write_text(
        'class A:\n    async def f(self):\n        """Told to logging.Logger as it is."""\n'
    )
    (folder / "xml" / "test").mkdir()
    (folder / "xml" / "test" / "this.py").write_text(
        'def f():\n    """Only where tests are installed."""\n'
    )


def test_the_same_library_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_library(tmp_path / name)
    one, two = build_dataset(tmp_path / "one"), build_dataset(tmp_path / "two")
    assert one == two
    assert len(one.validation) == 10 * round(12 * dataset.VALIDATION_SHARE)


def test_shared_and_naming_docstrings_are_dropped(tmp_path: Path) -> None:
    write_library(tmp_path)
    rows = dataset.classification_rows(dataset.read_docstrings(tmp_path))
    prompts = "\n".join(row.prompt for row in rows)
    assert len(rows) == 120
    assert "two modules" not in prompts.lower()
    assert "as it is" not in prompts
    assert "tests are installed" not in prompts
    assert ">>>" not in prompts


def test_nested_definitions_are_read_in_the_order_of_lines(tmp_path: Path) -> None:
    (tmp_path / "http.py").write_text(
        '"""module"""\n'
        "if True:\n"
        '    class A:\n        """class"""\n'
        '        def f(self):\n            """function"""\n'
        '            def inner():\n                """inner"""\n'
        "else:\n"
        '    async def g():\n        """last"""\n'
    )
    found = [(d.kind, d.text) for d in dataset.read_docstrings(tmp_path)]
    assert found == [
        ("module", "module"),
        ("class", "class"),
        ("function", "function"),
        ("function", "inner"),
        ("function", "last"),
    ]


def test_long_texts_are_cut_between_words() -> None:
    text = "word " * 100
    assert dataset.shorten(text.strip(), 18) == "word word word"
    pieces = list(dataset.pieces_of(text.strip()))
    assert " ".join(pieces) == text.strip()
    assert max(map(len, pieces)) <= dataset.TEXT_CHARACTERS
