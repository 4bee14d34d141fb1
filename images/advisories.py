"""Asks an advisory source about the packages of an image. An incomplete answer is no answer.

The source has the API of OSV (https://google.github.io/osv.dev/post-v1-querybatch/), which compares
versions itself. An image counts as checked only if the source has answered for each package.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from images.sbom import Package

ENVIRONMENT = "FINETUNE_ADVISORIES"  # the address of the source
BATCH = 500  # OSV takes 1,000 queries in a request
TIMEOUT_SECONDS = 60
MOST_PAGES = 50


class NotCheckedError(Exception):
    """The packages of an image are not checked, wholly or in part. The message has the reason."""


@dataclass(frozen=True)
class Advisory:
    """A known vulnerability of a package."""

    package: Package
    identifier: str

    def __str__(self) -> str:
        return f"{self.package.name} {self.package.version}: {self.identifier}"


def find_advisories(source: str | None, packages: Sequence[Package]) -> list[Advisory]:
    """The advisories for the packages. Raise NotCheckedError unless all of them are checked."""
    if not source:
        raise NotCheckedError(
            f"there is no advisory source. Set {ENVIRONMENT} or --advisories to the address of a "
            "server with the API of OSV, such as https://api.osv.dev"
        )
    if not packages:
        raise NotCheckedError("the list of packages is empty")
    if skipped := [it.name for it in packages if not it.is_complete]:
        raise NotCheckedError(f"no version or distribution is known of {', '.join(skipped)}")
    found: list[Advisory] = []
    for start in range(0, len(packages), BATCH):
        found += _find_in_batch(source, packages[start : start + BATCH])
    return found


def _find_in_batch(source: str, packages: Sequence[Package]) -> list[Advisory]:
    found: list[Advisory] = []
    waiting = [(package, "") for package in packages]
    for _ in range(MOST_PAGES):
        if not waiting:
            return found
        answers = _ask(source, [_query(package, token) for package, token in waiting])
        following = []
        for (package, _), answer in zip(waiting, answers, strict=True):
            found += [Advisory(package, str(it["id"])) for it in answer.get("vulns", [])]
            if token := answer.get("next_page_token"):
                following.append((package, str(token)))
        waiting = following
    raise NotCheckedError(f"{source} does not come to an end for {waiting[0][0].name}")


def _query(package: Package, token: str) -> dict[str, Any]:
    names = {"name": package.source or package.name, "ecosystem": package.ecosystem}
    query = {"package": names, "version": package.source_version or package.version}
    return query | ({"page_token": token} if token else {})


def _ask(source: str, queries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An answer for each query."""
    request = urllib.request.Request(  # noqa: S310 - the address is the administrator's
        f"{source.rstrip('/')}/v1/querybatch",
        data=json.dumps({"queries": queries}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            results: list[dict[str, Any]] = json.load(answer)["results"]
    except (OSError, urllib.error.URLError, ValueError, KeyError, TypeError) as error:
        raise NotCheckedError(f"{source} gives no usable answer: {error}") from error
    is_usable = isinstance(results, list) and all(
        isinstance(it, dict)
        and isinstance(it.get("vulns", []), list)
        and all(isinstance(found, dict) and "id" in found for found in it.get("vulns", []))
        for it in results
    )
    if not is_usable or len(results) != len(queries):
        raise NotCheckedError(f"{source} has not answered for each of {len(queries)} packages")
    return results
