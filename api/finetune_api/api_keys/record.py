"""The record of an API key: one entry of the Secret that the gateway has mounted."""

import re
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ValidationError

from finetune_api.wire import Wire

SECRET_NAME = "finetune-gateway-keys"  # noqa: S105 - the name, not a key
ENTRY_DIGITS = 16  # of the hash, in the name of the entry
RECORD_BYTES = 4096  # more than any record has
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_ACCOUNT = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


def _utc_seconds(value: object) -> datetime:
    """A time in UTC with whole seconds, of a datetime with a time zone or of its text in JSON."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(microsecond=0)
    if isinstance(value, str) and _TIME.fullmatch(value):
        return datetime.fromisoformat(value)
    raise ValueError("expected a time in UTC such as 2026-11-30T04:40:00Z")


UtcTime = Annotated[datetime, BeforeValidator(_utc_seconds)]


class KeyRecord(Wire):
    """What the Secret has about a key.

    An unknown field is an error: it can be a restriction that this version would not apply.
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    account: str = Field(pattern=_ACCOUNT, max_length=253)  # a ServiceAccount of the namespace
    created: UtcTime
    expires: UtcTime | None = None  # None: never
    note: str | None = Field(None, max_length=200)

    @classmethod
    def parse(cls, name: str, text: str | bytes) -> Self:
        """Parse one entry of the Secret.

        name: of the entry. Raise ValueError with the cause, which does not repeat the text.
        """
        if len(text) > RECORD_BYTES:
            raise ValueError(f"more than {RECORD_BYTES:,} bytes")
        try:
            record = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part)[:40] for part in first["loc"])
            cause = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {cause}" if where else cause) from None
        if record.entry_name != name:
            raise ValueError("sha256: the name of the entry is not its first 16 digits")
        return record

    @property
    def entry_name(self) -> str:
        return entry_name(self.sha256)

    def is_expired(self, now: datetime) -> bool:
        """now: with a time zone."""
        return self.expires is not None and self.expires <= now


def entry_name(sha256: str) -> str:
    """The name of the Secret's entry for the key with this hash."""
    return sha256[:ENTRY_DIGITS]
