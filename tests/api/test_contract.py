"""Values that processes exchange: URIs, names, resolution rules, and outcomes."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.hyperparameters import HyperparameterRules
from finetune_api.layout import RunLayout
from finetune_api.model_names import fine_tuned_model_name, resource_name, slug
from finetune_api.names import TERMINATION_MESSAGE_BYTES
from finetune_api.outcome import EpochMetrics, Failure, Outcome, Trained
from finetune_api.uris import HubUri, S3Uri, parse_model_uri

TIME = datetime(2022, 2, 15, 4, 21, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("organization", "suffix", "name"),
    [
        ("your-org", "custom model name", "ada:ft-your-org:custom-model-name-2022-02-15-04-21-04"),
        ("your-org", None, "ada:ft-your-org-2022-02-15-04-21-04"),
        ("Your Org!", "  Größe & Co.  ", "ada:ft-your-org:gr-e-co-2022-02-15-04-21-04"),
        ("o", "...", "ada:ft-o-2022-02-15-04-21-04"),
    ],
)
def test_model_names_have_the_format_of_openai(
    organization: str, suffix: str | None, name: str
) -> None:
    assert fine_tuned_model_name("ada", organization, suffix, TIME) == name


def test_model_names_contain_utc() -> None:
    berlin = TIME.astimezone(timezone(timedelta(hours=1)))
    assert fine_tuned_model_name("ada", "o", None, berlin).endswith("2022-02-15-04-21-04")


@given(st.text(max_size=60))
def test_resource_names_are_dns_safe(text: str) -> None:
    name = resource_name(f"ada:ft-{slug(text)}")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name.strip("-") == name


@pytest.mark.parametrize(
    ("examples", "batch", "multiplier"),
    [(1, 1, 0.05), (750, 2, 0.05), (8_000, 16, 0.1), (32_000, 64, 0.2), (10**6, 256, 0.2)],
)
def test_batch_size_and_multiplier_follow_the_rule(
    examples: int, batch: int, multiplier: float
) -> None:
    rules = HyperparameterRules()
    assert rules.batch_size(examples) == batch
    assert rules.multiplier(batch) == multiplier


@pytest.mark.parametrize(
    "text",
    [
        "train.jsonl",
        "s3://",
        "s3://B/x",
        "s3://bucket/../x",
        "s3://bucket/a//b",
        "s3://bucket/a\x00b",
        "s3://bucket/a\\b",
        "http://bucket/x",
    ],
)
def test_invalid_uris_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"S3 address|key"):
        S3Uri.parse(text)


def test_a_parsed_uri_prints_as_it_was() -> None:
    for text in ("s3://bucket", "s3://bucket/a/b c/d.jsonl"):
        assert str(S3Uri.parse(text)) == text
    assert parse_model_uri("hf://org/name@v1") == HubUri("org/name", "v1")
    assert str(HubUri.parse("hf://org/name")) == "hf://org/name@main"


def test_the_layout_of_a_run_is_below_its_namespace_and_uid() -> None:
    layout = RunLayout.of("s3://bkt/out", "team", "tone", "12345678-9abc")
    assert (
        str(layout.checkpoint(123)) == "s3://bkt/out/team/tone-12345678/checkpoints/step-00000123"
    )
    assert str(layout.results) == "s3://bkt/out/team/tone-12345678/results.csv"


LINES = st.lists(st.text(max_size=2000), max_size=30)


ANY = st.text(st.characters(), max_size=2000) | st.sampled_from(
    ["语" * 3000, "\x00" * 3000, "\ud800"]
)


@given(message=ANY, hint=ANY, lines=LINES, log=LINES)
def test_a_termination_message_fits_and_parses_with_any_content(
    message: str, hint: str, lines: list[str], log: list[str]
) -> None:
    outcome = Outcome(
        failure=Failure(code="InvalidData", message=message, hint=hint, lines=lines, log=log)
    )
    text = outcome.to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    found = Outcome.parse(text)
    assert found is not None and found.failure is not None
    assert found.failure.code == "InvalidData"


def test_a_message_that_is_too_long_keeps_the_last_epochs() -> None:
    epochs = [
        EpochMetrics(epoch=n, step=n * 1000, training_loss=1 / n, validation_loss=2 / n)
        for n in range(1, 51)
    ]
    trained = Trained(
        fine_tuned_model="m",
        model_uri="s3://bkt/m",
        model_manifest_sha256="0" * 64,
        result_files=["s3://bkt/results.csv"],
        trained_tokens=1,
        steps=50000,
        epochs=epochs,
    )
    found = Outcome.parse(Outcome(trained=trained).to_termination_message())
    assert found and found.trained and found.trained.epochs
    assert found.trained.epochs[-1].epoch == 50


@pytest.mark.parametrize("text", [None, "", "Traceback (most recent call last)", "[]", "3", "{}"])
def test_the_end_of_a_log_is_not_an_outcome(text: str | None) -> None:
    assert Outcome.parse(text) is None


def test_fields_of_a_newer_version_are_ignored() -> None:
    text = json.dumps({"kind": "outcome", "failure": {"code": "X", "message": "y", "new": 1}})
    found = Outcome.parse(text)
    assert found is not None and found.failure == Failure(code="X", message="y")
