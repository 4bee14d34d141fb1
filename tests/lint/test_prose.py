"""Every rule catches its bad sentence and passes its good ones; code is never prose."""

from pathlib import Path

import pytest

from lint.prose import Rule, check_prose, problems_in, rules
from lint.prose_text import START, prose_of

PLANTED = "The run goes on from the last checkpoint."


def lines_found(folder: Path, name: str, text: str) -> list[int]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return [problem.line for problem in check_prose(folder, [path])]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.bad)
def test_a_rule_catches_its_bad_sentence_and_passes_its_good_ones(rule: Rule) -> None:
    assert rule.use in {use for _, _, use in problems_in(f"{START}{rule.bad}")}, rule.bad
    for sentence in rule.good:
        assert not problems_in(f"{START}{sentence}"), sentence


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.md", f"# Title\n\n{PLANTED}\n", [3]),
        ("a.md", "A run that goes\non from here.\n", [1]),
        ("a.md", "A run that `goes on` and ``goes on``, [goes](goes-on.md).\n", []),
        ("a.md", "```sh\nfinetune goes on # it goes on\n```\n", [2]),
        ("a.md", "```text {.output}\nit goes on\n```\n", [2]),
        ("a.md", "| a | Of the data. |\n", [1]),
        ("a.md", "| a | of the data |\n", []),
        ("a.md", "It is one of the rows.\n", []),
        ("a.md", f"<!-- prose: allow -->\n{PLANTED}\n", []),
        ("a.py", f'"""{PLANTED}"""\n', [1]),
        ("a.py", "# A run that goes\n# on from here.\nx = 1\n", [1]),
        ("a.py", 'say("a run that goes "\n    "on from here")\n', [1]),
        ("a.py", 'say(f"it {goes} on", f"{it} goes", on)\n', []),
        ("a.py", 'STATE = "cancelled"\nCOLOUR = {"colour": "grey"}\n', []),
        ("a.py", "goes = on\nbeside = told\n", []),
        ("a.py", f"# {PLANTED}  prose: allow\n", []),
        ("a.py", '"""Of the data."""\n', [1]),
        ("a.md", "It is here.\n\nOf the rows, none.\n", [3]),
        ("a.py", "rows = 1  # of the first file\n", []),
        ("Makefile", "# It is one\n# of the rows.\n", []),
        ("a.yaml", "catalogue: {}  # a base model beside it\n", [1]),
        ("Makefile", "up: ## it goes on\n", [1]),
    ],
)
def test_prose_is_found_where_it_is_and_code_is_left_alone(
    tmp_path: Path, name: str, text: str, lines: list[int]
) -> None:
    assert lines_found(tmp_path, name, text) == lines


def test_a_finding_names_the_file_the_line_the_phrase_and_the_replacement(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"{PLANTED}\n")
    (problem,) = check_prose(tmp_path, [path])
    assert str(problem) == 'a.md:1: "goes on". Use: continue, resume.'


def test_offsets_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    text = Path(__file__).read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    prose = prose_of(path)
    assert len(prose) == len(text)
    assert prose.count("\n") == text.count("\n")
