"""Pages of lists: `after`, `limit`, and `order` of a query, and the list object of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from finetune_api.wire import JsonObject
from finetune_web.problems import invalid

T = TypeVar("T")
Order = Literal["asc", "desc"]
MOST = 100
DEFAULT = 20
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class PageQuery:
    """The part of a list that a client wants."""

    limit: int | None = DEFAULT  # None: everything
    after: str | None = None  # the id of the last object of the page before
    order: Order = "desc"  # by time; desc: the newest first


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list."""

    items: Sequence[T]
    has_more: bool


def parse_page(
    query: Mapping[str, str],
    *,
    default: int | None = DEFAULT,
    most: int = MOST,
    order: Order = "desc",
) -> PageQuery:
    """Raise Problem for a limit that is no number from 1 to `most`, and for an unknown order.

    default: the limit without one. order: of the list without one.
    """
    limit, text = default, query.get("limit")
    if text is not None:
        limit = int(text) if _NUMBER.fullmatch(text) else 0
        if not 1 <= limit <= most:
            raise invalid(
                f"limit is {text[:40]!r}, but it must be a number from 1 to {most}.", "limit"
            )
    wanted = query.get("order", order)
    if wanted not in {"asc", "desc"}:
        raise invalid(f"order is {wanted[:40]!r}, but it must be asc or desc.", "order")
    return PageQuery(limit, query.get("after") or None, "asc" if wanted == "asc" else "desc")


def cut(items: Sequence[T], page: PageQuery, id_of: Callable[[T], str]) -> Page[T]:
    """The page of a list that is in the page's order. Raise Problem for an unknown `after`."""
    start = 0
    if page.after is not None:
        found = (index for index, item in enumerate(items) if id_of(item) == page.after)
        start = next(found, -1) + 1
        if start == 0:
            raise invalid(
                f"after is {page.after[:200]!r}, which is not in this list. Use the id of the last "
                "object of the page before, or leave it out to start again.",
                "after",
            )
    end = len(items) if page.limit is None else start + page.limit
    return Page(items[start:end], end < len(items))


def list_object(data: Sequence[JsonObject], has_more: bool = False) -> JsonObject:
    """The answer with a page."""
    return {
        "object": "list",
        "data": list(data),
        "has_more": has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
