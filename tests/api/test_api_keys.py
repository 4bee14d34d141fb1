"""API keys: their form, and the records of the Secret that the gateway has mounted."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.api_keys import KeyRecord, entry_name, hash_key, is_key, new_key

NOW = datetime(2026, 11, 30, 4, 40, tzinfo=UTC)
HASH = hash_key("sk-ft-" + "a" * 43)
RECORD = {"sha256": HASH, "account": "bert", "created": "2026-11-30T04:40:00Z"}


def test_a_new_key_has_the_form_of_a_key_and_is_random() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(is_key(key) and len(key) == 49 for key in keys)


@pytest.mark.parametrize(
    "text", ["", "sk-ft-", "sk-ft-" + "a" * 42, "sk-ft-" + "a" * 44, "sk-" + "a" * 46]
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert not is_key(text)


def test_a_key_with_a_line_break_or_a_letter_beyond_ascii_is_none() -> None:
    assert not is_key("sk-ft-" + "a" * 43 + "\n")
    assert not is_key("sk-ft-" + "ä" * 43)


def test_a_record_is_the_same_after_writing_and_parsing_it() -> None:
    expires = NOW + timedelta(days=90)
    record = KeyRecord(sha256=HASH, account="bert", created=NOW, expires=expires, note="laptop")
    text = record.to_json()
    assert json.loads(text) == {
        "sha256": HASH,
        "account": "bert",
        "created": "2026-11-30T04:40:00Z",
        "expires": "2027-02-28T04:40:00Z",
        "note": "laptop",
    }
    assert KeyRecord.parse(entry_name(HASH), text) == record


def test_absent_fields_are_not_written() -> None:
    record = KeyRecord(sha256=HASH, account="bert", created=NOW)
    assert json.loads(record.to_json()) == RECORD
    assert not record.is_expired(NOW + timedelta(days=10_000))


def test_a_time_of_another_zone_is_written_in_utc_with_whole_seconds() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5))) + timedelta(microseconds=7)
    record = KeyRecord(sha256=HASH, account="bert", created=there)
    assert json.loads(record.to_json())["created"] == "2026-11-30T04:40:00Z"


def test_a_key_expires_at_its_second() -> None:
    record = KeyRecord(sha256=HASH, account="bert", created=NOW, expires=NOW)
    assert record.is_expired(NOW)
    assert not record.is_expired(NOW - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sha256": HASH.upper()}, "sha256"),
        ({"sha256": HASH[:-1]}, "sha256"),
        ({"account": "system:admin"}, "account"),
        ({"account": "../bert"}, "account"),
        ({"account": "bert\n"}, "account"),
        ({"account": ""}, "account"),
        ({"account": "a" * 254}, "account"),
        ({"created": 0}, "created"),
        ({"created": "yesterday"}, "created"),
        ({"created": "2026-13-01T00:00:00Z"}, "created"),
        ({"expires": "2027-02-28"}, "expires"),
        ({"note": "x" * 201}, "note"),
        ({"scopes": ["read"]}, "scopes"),
    ],
)
def test_a_broken_record_is_refused_with_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        KeyRecord.parse(entry_name(HASH), json.dumps(RECORD | change))


def test_a_record_under_the_name_of_another_key_is_refused() -> None:
    with pytest.raises(ValueError, match="the name of the entry"):
        KeyRecord.parse("0" * 16, json.dumps(RECORD))


@given(st.text(max_size=20), st.binary(max_size=5000) | st.text(max_size=5000))
def test_no_content_of_a_secret_raises_anything_but_a_value_error(
    name: str, text: str | bytes
) -> None:
    with pytest.raises(ValueError):
        KeyRecord.parse(name, text)


def test_the_cause_does_not_repeat_the_content() -> None:
    with pytest.raises(ValueError) as caught:
        KeyRecord.parse(entry_name(HASH), json.dumps(RECORD | {"account": "SECRET VALUE"}))
    assert "SECRET" not in str(caught.value)
