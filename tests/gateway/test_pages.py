"""Pages of lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_gateway.wire.pages import PageQuery, cut, list_object, parse_page
from finetune_web.problems import Problem


@pytest.mark.parametrize("limit", ["0", "101", "x", "", "-1", "1.5", "٣", "9" * 5000, " 1"])
def test_a_limit_that_is_no_number_from_1_to_100_is_refused(limit: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_page({"limit": limit})
    assert (refused.value.status, refused.value.param) == (400, "limit")


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        parse_page({"order": "newest"})
    assert (refused.value.status, refused.value.param) == (400, "order")


@pytest.mark.parametrize("after", ["g", "ab", "", "\0", "x" * 5000])
def test_an_object_of_another_list_is_no_place_to_continue(after: str) -> None:
    page = PageQuery(after=after)
    with pytest.raises(Problem) as refused:
        cut("abcdef", page, str)
    assert (refused.value.status, refused.value.param) == (400, "after")
    assert len(refused.value.message) < 1000


def test_the_defaults_are_those_of_the_list() -> None:
    assert parse_page({}) == PageQuery(20, None, "desc")
    assert parse_page({"limit": "7", "after": "x", "order": "asc"}) == PageQuery(7, "x", "asc")
    assert parse_page({"after": ""}, default=None, order="asc") == PageQuery(None, None, "asc")
    assert parse_page({"limit": "9999"}, most=10_000).limit == 9999


@given(items=st.lists(st.text(min_size=1), unique=True, max_size=30), limit=st.integers(1, 100))
def test_the_pages_together_are_the_list(items: list[str], limit: int) -> None:
    seen: list[str] = []
    after: str | None = None
    for _ in range(len(items) + 1):
        page = cut(items, PageQuery(limit, after), str)
        seen += page.items
        assert len(page.items) <= limit
        if not page.has_more:
            break
        after = page.items[-1]
    assert seen == items


@given(text=st.text(), key=st.sampled_from(["limit", "after", "order"]))
def test_any_query_is_a_page_or_a_problem(text: str, key: str) -> None:
    try:
        cut(["a", "b"], parse_page({key: text}), str)
    except Problem as problem:
        assert problem.status == 400


def test_a_list_names_its_ends() -> None:
    shown = list_object([{"id": "a"}, {"id": "b"}], has_more=True)
    assert (shown["first_id"], shown["last_id"], shown["has_more"]) == ("a", "b", True)
    assert list_object([]) == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
