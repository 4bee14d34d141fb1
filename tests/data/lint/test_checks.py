"""Each check, on files with a remark and on files without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_data.lint.fixes import apply_all
from finetune_data.lint.inspection import Inspection, inspect
from finetune_data.read.examples import Row
from tests.data.builders import reader
from tests.data.lint.support import Pair, checks, fixed, inspect_pairs, jsonl, recommended, remark

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def prompts(ending: str = "", count: int = 40) -> list[str]:
    return [
        f"{WORDS[n % 10]} {n * 7919 % 1000} {WORDS[n // 10 % 10]}{ending}" for n in range(count)
    ]


def pairs(ending: str = "", stop: str = "", space: str = " ") -> list[Pair]:
    texts = prompts(ending)
    return [(text, f"{space}{WORDS[n % 7]} {n}{stop}") for n, text in enumerate(texts)]


RULES: list[tuple[str, list[Pair], str, str]] = [
    ("completion", pairs(), "prompt-ending-missing", "Add the separator"),
    ("completion", pairs(" ->"), "completion-ending-missing", "Add the stop sequence"),
    ("completion", pairs(" ->", "\n", ""), "completion-space", "Add a space before"),
    ("auto", [*pairs(" ->")[:30], *pairs()[30:]], "prompt-ending-mixed", 'Add " ->" where'),
    ("auto", [*pairs(" ->", " END")[:30], *pairs(" ->")[30:]], "completion-ending-mixed", '" END"'),
    ("auto", [*pairs()[:30], *pairs(space="")[30:]], "completion-space", "Add a space before"),
    ("auto", [(p.upper(), c) for p, c in pairs()], "prompt-upper-case", "to lower case"),
    ("auto", [(p, c.upper()) for p, c in pairs()], "completion-upper-case", "to lower case"),
    ("auto", [*pairs(), *pairs()[:3]], "duplicates", "Remove the 3 copies"),
    ("auto", [(f"Tell me about: {p}", c) for p, c in pairs()], "prompt-prefix", "Remove"),
    ("auto", [(p, f" Answer:{c}") for p, c in pairs()], "completion-prefix", "Remove"),
]


@pytest.mark.parametrize(("profile", "data", "check", "proposal"), RULES)
def test_a_check_reports_a_remark_and_its_fix_resolves_it(
    profile: Any, data: list[Pair], check: str, proposal: str, tmp_path: Path
) -> None:
    inspection, training = inspect_pairs(data, profile=profile)
    found = remark(inspection, check)
    assert found.fix is not None
    assert proposal in found.fix.proposal
    healed = [
        (r.prompt, r.completion)
        for r in fixed(training, [found.fix], tmp_path)
        if isinstance(r, Row)
    ]
    assert check not in checks(inspect_pairs(healed, profile=profile)[0])


def test_clean_data_has_no_remarks() -> None:
    assert checks(inspect_pairs(pairs(" ->"))[0]) <= {"few-examples", "prompt-ending"}
    many = [(f"{n} {text}", f"{answer}{n}") for n in range(15) for text, answer in pairs(" ->")]
    assert checks(inspect_pairs(many)[0]) == {"prompt-ending"}


def test_prompts_without_a_separator_get_advice_and_stay_unchanged() -> None:
    found = remark(inspect_pairs(pairs())[0], "prompt-ending-missing")
    assert (found.level, found.fix) == ("advice", None)
    assert "--profile completion" in found.message
    forms = [(f"Q: {text}\nA:", answer) for text, answer in pairs()]
    texts = [("", answer) for _, answer in pairs()]
    for fine in (forms, texts, pairs(" ->")):
        assert "prompt-ending-missing" not in checks(inspect_pairs(fine)[0])


def test_an_ending_inside_of_texts_is_found_whenever_it_becomes_known() -> None:
    early = [("a -> b ->", "x1"), *pairs(" ->")]
    late = [("start", "x"), *pairs(" ->")]
    assert remark(inspect_pairs(early)[0], "prompt-ending-inside").count == 1
    assert "prompt-ending-inside" not in checks(inspect_pairs(late)[0])
    # only the last row of several batches shows that " END ->" is not shared, and " ->" is
    long = [(f"x -> {n} END ->", f"c{n}") for n in range(2500)] + [("y ->", "d")]
    assert remark(inspect_pairs(long)[0], "prompt-ending-inside").count == 2500


def test_the_proposed_separator_occurs_nowhere() -> None:
    taken = [(f"{text}\n\n###\n\nmore\n\n===\n\n", c) for text, c in pairs()]
    mixed = [(text + "!?"[: n % 3], c) for n, (text, c) in enumerate(taken)]
    fix = remark(inspect_pairs(mixed, profile="completion")[0], "prompt-ending-missing").fix
    assert fix is not None
    assert "---" in fix.proposal


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ([("", f"text {n}") for n in range(9)], "open-ended generation"),
        ([(f"p{n}", "ab"[n % 2]) for n in range(9)], "classification"),
        ([(f"p{n}", f"c{n}") for n in range(9)], "conditional generation"),
    ],
)
def test_the_kind_is_the_one_of_openais_tool(data: list[Pair], kind: str) -> None:
    assert inspect_pairs(data)[0].kind == kind


@pytest.mark.parametrize("side", ["prompt", "completion"])
def test_identical_texts_are_an_error(side: str) -> None:
    data = [("same", f"c{n}") if side == "prompt" else (f"p{n}", "same") for n in range(9)]
    assert remark(inspect_pairs(data)[0], f"{side}-identical").level == "error"


def test_classes_are_counted_and_checked() -> None:
    labels = [*["yes"] * 500, *["no"] * 20, *["Yes "] * 30]
    inspection, _ = inspect_pairs([(f"p{n}", label) for n, label in enumerate(labels)])
    assert inspection.classes == [("yes", 500), ("Yes ", 30), ("no", 20)]
    assert "2 of 3 classes have fewer than 100" in remark(inspection, "few-in-class").message
    assert remark(inspection, "imbalance").level == "advice"
    assert '"yes", "Yes "' in remark(inspection, "classes-alike").message
    assert "smallest base model" in remark(inspection, "base-model").message


def chat(*roles: str, **extra: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role}!"} for role in roles], **extra}


def see(*chats: dict[str, Any]) -> Inspection:
    return inspect([reader("\n".join(map(json.dumps, chats)).encode())], profile="chat")


@pytest.mark.parametrize(
    ("roles", "check"),
    [
        (("user", "user", "assistant"), "same-role"),
        (("user", "assistant", "user"), "no-answer"),
        (("assistant", "user", "assistant"), "no-question"),
    ],
)
def test_unusual_turns_are_reported(roles: tuple[str, ...], check: str) -> None:
    inspection = see(chat("user", "assistant"), chat(*roles))
    assert remark(inspection, check).places == ("line 2",)
    assert check not in checks(see(chat("user", "assistant")))


def test_chats_have_duplicates_and_conflicts_too() -> None:
    other = chat("user", "assistant")
    other["messages"][1]["content"] = "else"
    inspection = see(chat("user", "assistant"), chat("user", "assistant"), other)
    assert remark(inspection, "duplicates").count == 1
    assert remark(inspection, "conflicts").count == 1
    mixed = see(chat("system", "user", "assistant"), chat("user", "assistant"))
    assert "1 of 2 chats has no system message" in remark(mixed, "system-mixed").message


def test_wrong_lines_are_one_remark_whose_fix_removes_them() -> None:
    inspection = inspect([reader(jsonl([("a", "b")]) + b"{}\n" + jsonl([("c", "d")]))])
    found = remark(inspection, "wrong-lines")
    assert (found.level, inspection.wrong, len(inspection.findings)) == ("error", 1, 1)
    assert found.fix is not None
    assert found.fix.loses
    assert found.fix not in recommended(inspection)


def test_several_files_are_one_set_and_places_name_their_file() -> None:
    first, second = (
        reader(jsonl([("a", "b")]), "one.jsonl"),
        reader(jsonl([("a", "b")]), "two.jsonl"),
    )
    inspection = inspect([first, second])
    places = remark(inspection, "duplicates").places
    assert places == ("two.jsonl, line 1 repeats one.jsonl, line 1",)
    chats = reader(json.dumps(chat("user", "assistant")).encode(), "three.jsonl")
    assert "prepare them separately" in remark(inspect([first, chats]), "wrong-lines").message


text = st.text("abAB \n>-中", max_size=6)


@settings(max_examples=60)
@given(st.lists(st.tuples(text, text.filter(bool)), min_size=1, max_size=12), st.randoms())
def test_a_fix_changes_no_row_that_it_does_not_name(rows: list[Pair], random: Any) -> None:
    """The order in which fixes are accepted does not matter, either."""
    inspection, _ = inspect_pairs(rows, profile="completion")
    examples = [Row(line, *pair) for line, pair in enumerate(rows, 1)]
    for fix in inspection.fixes:
        mask = getattr(fix, "mask", None)
        field = getattr(fix, "field", None)
        for ordinal, row in enumerate(examples):
            changed = fix.apply(ordinal, row)
            if mask is not None:
                assert changed == (None if mask[ordinal] else row)
            elif field == "prompt":
                assert isinstance(changed, Row)
                assert changed.completion == row.completion
            elif field == "completion":
                assert isinstance(changed, Row)
                assert changed.prompt == row.prompt
                assert changed.completion
            else:
                assert changed == row
    ordered = inspection.fixes
    shuffled = list(ordered)
    random.shuffle(shuffled)
    shuffled.sort(key=lambda fix: fix.order)
    for ordinal, row in enumerate(examples):
        assert apply_all(ordered, ordinal, row) == apply_all(shuffled, ordinal, row)


def test_classes_that_differ_in_case_or_space_get_the_most_frequent_spelling(
    tmp_path: Path,
) -> None:
    answers = ["Bug"] * 20 + ["bug"] * 3 + ["bill"] * 9 + ["Bill "] * 2 + ["other"] * 9
    rows = [(f"{text} ->", answer) for text, answer in zip(prompts(count=43), answers, strict=True)]
    inspection, training = inspect_pairs(rows)
    alike = [one for one in inspection.remarks if one.check == "classes-alike"]
    (fix,) = [one.fix for one in alike if one.fix is not None]
    assert len(alike) == 2
    assert (fix.name, fix.loses) == ("same-spelling", True)
    assert fix.proposal == 'Write "bug" as "Bug", "Bill " as "bill"'
    healed = [row for row in fixed(training, [fix], tmp_path) if isinstance(row, Row)]
    assert sorted({row.completion for row in healed}) == ["Bug", "bill", "other"]
    assert [row.prompt for row in healed] == [prompt for prompt, _ in rows]


def test_a_separator_does_not_include_the_words_before_it() -> None:
    asked = [(f"{n} {WORDS[n % 10]} even?\n\n###\n\n", WORDS[n % 7]) for n in range(40)]
    assert inspect_pairs(asked)[0].separator == "\n\n###\n\n"
