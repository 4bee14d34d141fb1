"""Values that processes exchange: URIs, names, resolution rules, and outcomes."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.hyperparameters import HyperparameterRules, ResolvedHyperparameters
from finetune_api.layout import RunLayout, base_check_uri, dataset_uri
from finetune_api.model_names import (
    MODEL_NAME_CHARACTERS,
    fine_tuned_model_name,
    resource_name,
    slug,
)
from finetune_api.names import TERMINATION_MESSAGE_BYTES
from finetune_api.outcome import (
    Adopted,
    EpochMetrics,
    Failure,
    Outcome,
    Prepared,
    Trained,
    _cut,
)
from finetune_api.tasks import FallbackPlan
from finetune_api.training_files import TrainingFileCounts
from finetune_api.uris import ADDRESS_BYTES, OUTPUT_BYTES, HubUri, S3Uri, parse_model_uri

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


def test_the_longest_suffix_fits_into_the_name_of_a_model() -> None:
    """With the longest names of a base model and of a namespace."""
    spec = FineTuneSpec(training_file="s3://acme/train.jsonl", suffix="s" * 64)
    with pytest.raises(ValidationError, match="at most 64 characters"):
        FineTuneSpec(training_file="s3://acme/train.jsonl", suffix="s" * 65)
    name = fine_tuned_model_name("b" * 63, "n" * 63, spec.suffix, TIME)
    assert len(name) <= MODEL_NAME_CHARACTERS
    assert resource_name(name) == name.replace(":", "-")


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


LETTERS = ["a", "é", "语", "😀", "'", " ", "="]  # 1 to 4 bytes


@st.composite
def addresses(draw: st.DrawFn, most: int, others: Sequence[str] = ()) -> str:
    """An address with exactly the most bytes that the CRD allows, or fewer."""
    text = "s3://bkt/"
    for letter in draw(st.lists(st.sampled_from([*LETTERS, *others]), max_size=6)) * most:
        if len(f"{text}{letter}".encode()) > most:
            break
        text += letter
    return text[: draw(st.integers(len("s3://bkt"), len(text)))].rstrip("/")


@settings(max_examples=40)
@given(
    output=addresses(OUTPUT_BYTES, ['"']),
    name=st.integers(1, 63),
    namespace=st.integers(1, 63),
    model=st.integers(1, 253),
    epochs=st.integers(0, 20),
    files=st.integers(0, 16),
    advice=st.lists(st.text(max_size=500), max_size=9),
)
def test_every_result_fits_with_its_addresses_at_all_lengths_that_the_crd_allows(
    output: str, name: int, namespace: int, model: int, epochs: int, files: int, advice: list[str]
) -> None:
    layout = RunLayout.of(output, "n" * namespace, "f" * name, "12345678-9abc")
    metrics = EpochMetrics(
        epoch=10**4,
        step=10**9,
        training_loss=1.2345678901234567e-05,
        validation_loss=1.2345678901234567e-05,
        validation_sequence_accuracy=0.12345678901234568,
        validation_token_accuracy=0.12345678901234568,
        learning_rate=1.2345678901234567e-05,
    )
    trained = Trained(
        fine_tuned_model=f"{'m' * model}:ft-{'o' * namespace}:{'s' * 40}-2026-11-29-12-00-00",
        model_uri=str(layout.model),
        model_manifest_sha256="0" * 64,
        result_files=[str(layout.results)],
        trained_tokens=10**15,
        steps=10**9,
        training_loss=1.2345678901234567e-05,
        first_loss=1.2345678901234567e-05,
        before=metrics,
        epochs=[metrics] * epochs,
    )
    text = Outcome(trained=trained, resumed_from_step=10**9).to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    found = Outcome.parse(text)
    assert found is not None and found.trained is not None
    kept = len(found.trained.epochs or [])
    assert found.trained == trained.replace(epochs=[metrics] * kept)
    prepared = Prepared(
        training_examples=10**9,
        validation_examples=10**9,
        training_files=[TrainingFileCounts(examples=10**9, epoch_examples=10**11)] * files,
        training_tokens=10**15,
        skipped_lines=10**9,
        steps=10**9,
        hyperparameters=ResolvedHyperparameters(
            n_epochs=10**4,
            batch_size=10**6,
            learning_rate_multiplier=1.2345678901234567e-05,
            learning_rate=1.2345678901234567e-05,
            prompt_loss_weight=0.12345678901234568,
            warmup_ratio=0.12345678901234568,
            weight_decay=0.12345678901234568,
            lr_schedule="constant",
            max_sequence_length=10**6,
            seed=2**31,
        ),
        dataset=str(dataset_uri(output, "n" * namespace, "0" * 32)),
        zero_stage=3,
        offload="parameters",
        memory_per_rank_gib=12345.6,
        memory_per_pod_gib=12345.6,
        storage_per_pod_gib=12345.6,
        checkpoint_per_pod_gib=12345.6,
        fallbacks=[
            FallbackPlan(
                zero_stage=3,
                offload="parameters",
                memory_per_rank_gib=12345.6,
                memory_per_pod_gib=12345.6,
            )
        ]
        * 4,
        advice=advice,
    )
    text = Outcome(prepared=prepared).to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    found = Outcome.parse(text)
    assert found is not None and found.prepared is not None
    assert found.prepared.replace(advice=None) == prepared.replace(advice=None)
    adopted = Adopted(
        uid="12345678-9abc-def0-1234-56789abcdef0",
        **{key: getattr(trained, key) for key in Adopted.model_fields if key != "uid"},
    )
    revised = prepared.replace(base_revision="0" * 128)
    text = Outcome(prepared=revised, adopted=adopted).to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    found = Outcome.parse(text)
    assert found is not None and found.prepared is not None and found.adopted is not None
    assert found.prepared.replace(advice=None) == revised.replace(advice=None)
    assert found.adopted.replace(epochs=None) == adopted.replace(epochs=None)


def test_the_longest_names_give_keys_that_s3_accepts() -> None:
    """1,024 bytes, with room for the names of the files of a base model."""
    output = f"s3://bkt/{'語' * 200}"[: OUTPUT_BYTES // 3]
    output += "x" * (OUTPUT_BYTES - len(output.encode()))
    assert len(output.encode()) == OUTPUT_BYTES
    layout = RunLayout.of(output, "n" * 63, "f" * 63, "12345678-9abc")
    longest = (
        layout.checkpoint(10**8 - 1).child("rank-00000-of-00000", "model", "f" * 100),
        layout.model.child("additional_chat_templates", "t" * 100),
        layout.data_report,
        dataset_uri(output, "n" * 63, "0" * 64).child("f" * 100),
        base_check_uri(output, "n" * 63, "0" * 64),
    )
    for uri in longest:
        assert len(uri.key.encode()) <= ADDRESS_BYTES
        assert S3Uri.parse(str(uri)) == uri


@settings(max_examples=40)
@given(
    file=addresses(ADDRESS_BYTES),
    output=addresses(OUTPUT_BYTES),
    words=st.text(max_size=1500),
    lines=LINES,
)
def test_the_addresses_in_the_texts_of_a_failure_are_complete(
    file: str, output: str, words: str, lines: list[str]
) -> None:
    layout = RunLayout.of(output, "n" * 63, "f" * 63, "12345678-9abc")
    file, report = (str(it).replace(" ", "_") for it in (file, layout.data_report))
    failure = Failure(
        code="InvalidData",
        message=f"S3 denies access to {file} at https://minio.example:9000 {words}",
        hint=f"all findings are in {report}",
        lines=[f"{file} {line}" for line in lines],
        param="trainingFiles[15].uri",
    )
    text = Outcome(failure=failure).to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    found = Outcome.parse(text)
    assert found is not None and found.failure is not None
    assert file in found.failure.message.split(" ")
    assert found.failure.hint == failure.hint
    assert found.failure.param == failure.param
    for line in found.failure.lines or []:
        assert line.split(" ")[0] in {file, "…"}


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [
        ("see s3://bkt/a/b now", 30, "see s3://bkt/a/b now"),
        ("see s3://bkt/a/b or later", 22, "see s3://bkt/a/b …"),
        ("see s3://bkt/a/b now", 21, "see …"),  # never an address with an ellipsis at its end
        ("see s3://bkt/a/b now", 20, "see …"),
        ("see s3://bkt/a/b", 12, "see …"),
        ("see hf://org/name@main, and", 14, "see …"),
        ("no address is here", 14, "no addres…"),
    ],
)
def test_a_text_is_never_cut_within_an_address(text: str, limit: int, cut: str) -> None:
    assert _cut(text, limit) == cut


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
