"""Ids of both APIs, and addresses of uploaded files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.uris import S3Uri
from finetune_gateway.wire.file_objects import FileKey, KnownFiles, parse_key
from finetune_gateway.wire.ids import (
    Artifact,
    Form,
    file_time,
    finetune_name,
    finetune_names,
    is_file_id,
    is_name,
    new_file_id,
    new_name,
    parse_artifact,
    shown_id,
)
from finetune_gateway.wire.timestamps import parse_time, unix

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True)
ROOT = S3Uri.parse("s3://bucket/gateway/ml/files")


@given(name=NAMES, form=st.sampled_from(get_args(Form)))
def test_an_id_leads_back_to_its_name(name: str, form: Form) -> None:
    assert finetune_name(shown_id(name, form)) == name
    assert name in finetune_names(name)


def test_a_name_that_begins_with_a_prefix_is_the_second_meaning() -> None:
    assert finetune_names("ft-tone") == ["tone", "ft-tone"]
    assert finetune_names("ftjob-ft-tone") == ["ft-tone", "ftjob-ft-tone"]
    assert finetune_names("ft-") == []


@given(st.text() | st.text(alphabet="ft-job/.%a\0"))
def test_any_text_is_an_id_or_not(text: str) -> None:
    assert all(is_name(name) for name in finetune_names(text))
    assert parse_artifact(text) is None or text.startswith("file-")
    if is_file_id(text):
        file_time(text)


@given(base=st.text(), suffix=st.none() | st.text())
def test_every_new_name_is_a_name(base: str, suffix: str | None) -> None:
    assert is_name(new_name(base, suffix))
    digits = new_name(base, suffix, "0123456789abcdef")
    assert is_name(digits)
    assert digits.endswith("-012345")


def test_two_new_names_differ() -> None:
    assert len({new_name("ada", "tone") for _ in range(50)}) == 50


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1)))
def test_a_file_id_has_its_time(at: datetime) -> None:
    at = at.replace(tzinfo=UTC)
    found = new_file_id(at)
    assert is_file_id(found)
    assert abs((file_time(found) - at).total_seconds()) < 0.01


def test_a_file_id_of_the_end_of_time_has_one() -> None:
    last = "file-7" + "z" * 25
    assert is_file_id(last)
    assert file_time(last).year == 9999


@given(NAMES)
def test_artifacts_lead_back_to_their_fine_tune(name: str) -> None:
    for artifact in (Artifact("results", name), Artifact("report", name)):
        assert parse_artifact(artifact.id) == artifact


def test_only_an_address_of_an_upload_has_an_id() -> None:
    file_id = new_file_id(datetime(2026, 11, 21, tzinfo=UTC))
    uri = ROOT.child(file_id, "fine-tune", "train.jsonl")
    assert parse_key(ROOT, uri) == FileKey(file_id, "fine-tune", "train.jsonl")
    files = KnownFiles(ROOT)
    assert files.id_of(str(uri)) == file_id
    for other in (
        f"s3://other/gateway/ml/files/{file_id}/fine-tune/train.jsonl",
        f"s3://bucket/gateway/team/files/{file_id}/fine-tune/train.jsonl",
        f"s3://bucket/gateway/ml/filesystem/{file_id}/fine-tune/train.jsonl",
        f"s3://bucket/gateway/ml/files/{file_id}/fine-tune",
        f"s3://bucket/gateway/ml/files/{file_id}/fine-tune/a/train.jsonl",
        "s3://bucket/gateway/ml/files/tone/fine-tune/train.jsonl",
        "s3://bucket/..",
        "not an address",
    ):
        assert files.id_of(other) == other


@given(st.text())
def test_any_address_has_a_file_object(address: str) -> None:
    shown = KnownFiles(ROOT).object_of(address, "fine-tune", None)
    assert shown["id"] == address


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21T12:00:00Z", 1795262400),
        ("2026-11-21T12:00:00", 1795262400),
        ("2026-11-21T13:00:00+01:00", 1795262400),
        ("yesterday", None),
        ("", None),
        (None, None),
        ("0001-01-01T00:00:00+23:59", None),
        ("9999-12-31T23:59:59-23:59", None),
    ],
)
def test_a_time_is_seconds_or_none(text: str | None, seconds: int | None) -> None:
    assert unix(text) == seconds


@given(st.text(max_size=64) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.Z+-]{0,20}"))
def test_any_text_is_a_time_or_none(text: str) -> None:
    found = parse_time(text)
    assert found is None or found.tzinfo is UTC
