"""The split: by class, whole prompts together, repeatable."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_data.lint.columns import Columns
from finetune_data.lint.fingerprints import Fingerprints
from finetune_data.read.examples import Row
from finetune_data.rewrite.train_validation_split import AT_MOST, Split, plan_split

Pair = tuple[str, str]


def plan(rows: list[Pair], *, seed: int = 1, share: float = 0.2, classes: bool = True) -> Split:
    table = Fingerprints()
    table.begin("a")
    table.observe(Columns([Row(line, *row) for line, row in enumerate(rows, 1)], 0, 0))
    kept = np.ones(len(rows), bool)
    return plan_split(table, kept, share=share, seed=seed, is_classification=classes)


rows = st.lists(
    st.tuples(st.integers(0, 15).map("p{}".format), st.sampled_from(["a", "b", "c"])),
    min_size=2,
    max_size=60,
)


@settings(max_examples=150)
@given(rows, st.integers(0, 5), st.booleans())
def test_a_prompt_is_on_one_side_and_a_class_on_both(
    pairs: list[Pair], seed: int, classes: bool
) -> None:
    split = plan(pairs, seed=seed, classes=classes)
    sides: dict[str, set[bool]] = {}
    for (prompt, _), side in zip(pairs, split.is_validation.tolist(), strict=True):
        sides.setdefault(prompt, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    first = dict(reversed(pairs))
    for label in set(first.values()):
        owned = [prompt for prompt, one in first.items() if one == label]
        found = {side for prompt in owned for side in sides[prompt]}
        if classes and len(owned) > 1:
            assert found == {False, True}
        elif classes:
            assert found == {False}


def test_the_shares_of_classes_are_kept_and_the_whole_is_bounded() -> None:
    pairs = [(f"p{n}", "a" if n % 10 else "b") for n in range(2000)]
    chosen = plan(pairs).is_validation
    labels = [label for (_, label), side in zip(pairs, chosen, strict=True) if side]
    assert 380 <= len(labels) <= 420
    assert 36 <= labels.count("b") <= 44
    many = [(f"p{n}", f"c{n}") for n in range(20_000)]
    assert AT_MOST * 0.95 <= plan(many, classes=False).is_validation.sum() <= AT_MOST * 1.05


def test_the_order_depends_only_on_the_seed_and_the_text() -> None:
    pairs = [(f"p{n}", "ab"[n % 2]) for n in range(100)]
    chosen = plan(pairs).is_validation
    assert chosen.tolist() == plan(pairs).is_validation.tolist()
    assert chosen.tolist() != plan(pairs, seed=2).is_validation.tolist()
    turned = plan(pairs[::-1]).is_validation[::-1]
    assert chosen.tolist() == turned.tolist()


def test_texts_without_prompts_are_distinguished_by_their_completions() -> None:
    pairs = [("", f"text {n}") for n in range(100)]
    assert 18 <= plan(pairs, classes=False).is_validation.sum() <= 22


def test_a_class_of_one_prompt_is_counted() -> None:
    pairs = [(f"p{n}", "a") for n in range(9)] + [("q", "b")] * 3
    split = plan(pairs)
    assert split.single_prompt_classes == 1
    assert not split.is_validation[9:].any()
