"""The ids of OpenAI's API, each of which is the name of an object here.

- `ft-NAME` (the fine-tunes API) and `ftjob-NAME` (the fine-tuning API): the FineTune NAME. The
  bare name and the other prefix are accepted, too.
- `file-` and a ULID in lower case: an uploaded file. ULIDs sort by time.
- `file-results-NAME`, `file-report-NAME`: results.csv and the report of the FineTune NAME.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from finetune_api.model_names import slug

Form = Literal["fine-tune", "job"]  # of the fine-tunes API, and of the fine-tuning API
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # of a FineTune
NAME_CHARACTERS = 63
PREFIXES = ("ftjob-", "ft-")
_PREFIX: dict[Form, str] = {"fine-tune": "ft-", "job": "ftjob-"}
_LAST_MILLISECOND = 253_402_300_799_999  # of the year 9999; a ULID can be of a later one
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_ULID = re.compile(rf"file-[0-7][{_CROCKFORD}]{{25}}")
_ARTIFACT = re.compile(r"file-(results|report)-(.+)")
RANDOM_DIGITS = 6


def shown_id(name: str, form: Form) -> str:
    """The id of the FineTune with this name in one of the two APIs."""
    return _PREFIX[form] + name


def finetune_name(job_id: str) -> str | None:
    """The name of the FineTune with this id; None if no FineTune can have it.

    A FineTune whose own name begins with a prefix is found by the prefix before it, or, if the
    caller asks for it by its bare name, by the second candidate of `finetune_names`.
    """
    names = finetune_names(job_id)
    return names[0] if names else None


def finetune_names(job_id: str) -> list[str]:
    """The names that an id can stand for, the likeliest first: without its prefix, and as it is."""
    bare = next((job_id[len(p) :] for p in PREFIXES if job_id.startswith(p)), None)
    return [name for name in (bare, job_id) if name and is_name(name)]


def is_name(text: str) -> bool:
    return len(text) <= NAME_CHARACTERS and NAME.fullmatch(text) is not None


def new_name(base: str, suffix: str | None, digits: str | None = None) -> str:
    """A name for a new FineTune: of its suffix or base model, with six digits.

    digits: hexadecimal; None: random ones.
    """
    digits = (digits or secrets.token_hex(RANDOM_DIGITS // 2))[:RANDOM_DIGITS]
    stem = slug(suffix or "") or slug(base) or "finetune"
    return f"{stem[: NAME_CHARACTERS - RANDOM_DIGITS - 1].strip('-')}-{digits}"


def new_file_id(now: datetime) -> str:
    """A new id. now: with a time zone."""
    number = (int(now.timestamp() * 1000) << 80) | secrets.randbits(80)
    digits = (_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))
    return f"file-{''.join(digits)}"


def is_file_id(text: str) -> bool:
    """Whether it is the id of an uploaded file."""
    return _ULID.fullmatch(text) is not None


def file_time(file_id: str) -> datetime:
    """The time at which the id of an uploaded file was made, in UTC."""
    number = 0
    for digit in file_id.removeprefix("file-"):
        number = number << 5 | _CROCKFORD.index(digit)
    return datetime.fromtimestamp(min(number >> 80, _LAST_MILLISECOND) / 1000, UTC)


@dataclass(frozen=True)
class Artifact:
    """A file that a FineTune publishes."""

    kind: Literal["results", "report"]
    finetune: str

    @property
    def id(self) -> str:
        return f"file-{self.kind}-{self.finetune}"


def parse_artifact(file_id: str) -> Artifact | None:
    found = _ARTIFACT.fullmatch(file_id)
    if found is None or not is_name(found[2]):
        return None
    return Artifact("results" if found[1] == "results" else "report", found[2])
