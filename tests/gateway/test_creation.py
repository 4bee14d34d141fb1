"""The bodies that create a fine-tune: what they become, and what each error gets."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetune import FineTune
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.names import ANNOTATION_METADATA, LABEL_REQUEST
from finetune_api.wire import JsonObject
from finetune_gateway.wire.creation import build_finetune, named_files
from finetune_gateway.wire.ids import Form
from finetune_gateway.wire.object_marks import (
    is_metadata,
    read_metadata,
    request_label,
    write_metadata,
)
from finetune_gateway.wire.request_bodies import parse_creation
from finetune_web.problems import Problem

FILE = "file-01m7yw6nw0jv8eb33q8pb9ssjv"
ADDRESS = "s3://bucket/gateway/ml/files/x/fine-tune/train.jsonl"
ADDRESSES = {FILE: ADDRESS}
SUPERVISED = "method.supervised.hyperparameters"


def manifest(
    body: JsonObject, form: Form = "job", defaults: JsonObject | None = None
) -> JsonObject:
    """The FineTune of a body that also has a model and a training file."""
    return build_finetune(
        parse_creation({"model": "ada", "training_file": FILE} | body, form),
        name="tone-1a2b3c",
        label="0" * 32,
        defaults=defaults or {},
        addresses=ADDRESSES,
    )


def spec(body: JsonObject, form: Form = "job", defaults: JsonObject | None = None) -> JsonObject:
    found: JsonObject = manifest(body, form, defaults)["spec"]
    FineTuneSpec.model_validate(found, strict=True)  # as the API server sees it
    return found


def refusal(body: JsonObject, form: Form = "job") -> Problem:
    with pytest.raises(Problem) as refused:
        manifest(body, form)
    return refused.value


def test_the_command_line_of_the_fine_tunes_api_sets_every_hyperparameter() -> None:
    found = spec(
        {
            "validation_file": "s3://acme/valid.jsonl",
            "suffix": "custom model name",
            "n_epochs": 1,
            "batch_size": 8,
            "learning_rate_multiplier": 0.1,
            "prompt_loss_weight": 0.01,
            "compute_classification_metrics": True,
            "classification_n_classes": 2,
            "classification_positive_class": " yes",
            "classification_betas": [0.5, 2.0],
        },
        "fine-tune",
    )
    assert found == {
        "model": "ada",
        "suffix": "custom model name",
        "trainingFile": ADDRESS,
        "validationFile": "s3://acme/valid.jsonl",
        "hyperparameters": {
            "nEpochs": 1,
            "batchSize": 8,
            "learningRateMultiplier": 0.1,
            "promptLossWeight": 0.01,
            "computeClassificationMetrics": True,
            "classificationNClasses": 2,
            "classificationPositiveClass": " yes",
            "classificationBetas": [0.5, 2.0],
        },
    }


def test_the_object_has_the_label_the_metadata_and_the_name() -> None:
    made = manifest({"metadata": {"team": "support"}})
    assert (made["apiVersion"], made["kind"]) == ("finetune.dev/v1alpha1", "FineTune")
    assert made["metadata"] == {
        "name": "tone-1a2b3c",
        "labels": {LABEL_REQUEST: "0" * 32},
        "annotations": {ANNOTATION_METADATA: '{"team":"support"}'},
    }
    assert "annotations" not in manifest({})["metadata"]
    FineTune.parse(made)


@pytest.mark.parametrize("prefix", ["hyperparameters", "method"])
def test_both_places_of_hyperparameters_are_read(prefix: str) -> None:
    values = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": None}
    nested = {"type": "supervised", "supervised": {"hyperparameters": values}}
    body = {"method": nested} if prefix == "method" else {prefix: values}
    assert spec(body)["hyperparameters"] == {"nEpochs": 3}


def test_what_is_null_or_auto_or_empty_is_left_out() -> None:
    body = {
        "suffix": "",
        "seed": None,
        "integrations": None,
        "metadata": None,
        "method": None,
        "hyperparameters": {"n_epochs": "auto"},
        "validation_file": None,
    }
    assert spec(body) == {"model": "ada", "trainingFile": ADDRESS}
    assert spec({"integrations": []}) == {"model": "ada", "trainingFile": ADDRESS}


def test_the_seed_is_a_hyperparameter() -> None:
    assert spec({"seed": 7})["hyperparameters"] == {"seed": 7}


def test_the_fine_tunes_api_trains_curie_by_default() -> None:
    assert spec({"model": None}, "fine-tune")["model"] == "curie"


def test_an_address_is_a_file_as_it_is() -> None:
    body = parse_creation({"model": "ada", "training_file": "s3://acme/a b.csv"}, "job")
    assert named_files(body) == []
    assert spec({"training_file": "s3://acme/a b.csv"})["trainingFile"] == "s3://acme/a b.csv"


def test_the_administrators_part_is_below_the_request() -> None:
    defaults = {
        "method": {"type": "lora", "rank": 8},
        "resources": {"gpusPerNode": 8},
        "hyperparameters": {"learningRate": 0.001, "seed": 1},
        "suffix": "theirs",
    }
    found = spec({"finetune": {"resources": {"nodes": 2}}, "suffix": "mine"}, "job", defaults)
    assert found["resources"] == {"gpusPerNode": 8, "nodes": 2}
    assert found["method"] == {"type": "lora", "rank": 8}
    assert found["suffix"] == "mine"
    assert found["hyperparameters"] == {"learningRate": 0.001, "seed": 1}


def test_a_multiplier_replaces_the_learning_rate_of_the_catalog() -> None:
    defaults = {"hyperparameters": {"learningRate": 0.001, "seed": 1}}
    found = spec({"learning_rate_multiplier": 0.1}, "fine-tune", defaults)
    assert found["hyperparameters"] == {"learningRateMultiplier": 0.1, "seed": 1}
    defaults = {"hyperparameters": {"learningRateMultiplier": 0.1}}
    extension = {"hyperparameters": {"learningRate": 0.01}}
    found = spec({"finetune": extension}, "fine-tune", defaults)
    assert found["hyperparameters"] == {"learningRate": 0.01}


def test_null_in_the_extension_removes_the_administrators_value() -> None:
    defaults = {"method": {"type": "lora", "rank": 8}}
    extension = {"method": {"type": "full", "rank": None}}
    assert spec({"finetune": extension}, "job", defaults)["method"] == {"type": "full"}


def test_several_training_files_replace_the_one() -> None:
    files = [{"uri": "s3://acme/a", "weight": 1}, {"uri": "s3://acme/b", "weight": 3}]
    found = spec({"training_file": None, "finetune": {"trainingFiles": files}})
    assert found == {"model": "ada", "trainingFiles": files}


ROWS: list[tuple[Form, JsonObject, str, str, str]] = [
    ("fine-tune", {"training_file": None}, "training_file", "missing_field", "is required"),
    ("fine-tune", {"training_file": ""}, "training_file", "missing_field", "s3:// address"),
    ("fine-tune", {"training_file": 3}, "training_file", "invalid_type", "it is 3"),
    ("fine-tune", {"training_file": "nosuch.jsonl"}, "training_file", "file_not_found",
     "there is no file 'nosuch.jsonl' here, and none of that name was uploaded"),
    ("fine-tune", {"training_file": f"{FILE[:-1]}0"}, "training_file", "file_not_found", "here"),
    ("fine-tune", {"training_file": "https://x/y"}, "training_file", "file_not_found", "here"),
    ("job", {"training_file": "../../etc"}, "training_file", "file_not_found", "here"),
    ("job", {"training_file": "x" * 2048}, "training_file", "file_not_found", "here"),
    ("job", {"training_file": "file-results-tone"}, "training_file", "invalid_purpose", "result"),
    ("job", {"training_file": "s3://A"}, "training_file", "invalid_value", "not an S3 address"),
    ("job", {"training_file": "s3://acme/../x"}, "training_file", "invalid_value", "'..' part"),
    ("job", {"training_file": "s3://acme"}, "training_file", "invalid_value", "is a bucket"),
    ("job", {"validation_file": "nosuch"}, "validation_file", "file_not_found", "here"),
    ("job", {"model": None}, "model", "missing_field", "is required"),
    ("job", {"model": ["ada"]}, "model", "invalid_type", "a list"),
    ("fine-tune", {"suffix": "x" * 41}, "suffix", "invalid_value", "at most 40"),
    ("job", {"suffix": "x" * 65}, "suffix", "invalid_value", "at most 64"),
    ("job", {"suffix": {}}, "suffix", "invalid_type", "a JSON object"),
    ("fine-tune", {"user": "me"}, "user", "unknown_field", "user is not a field"),
    ("fine-tune", {"seed": 1}, "seed", "unknown_field", "seed"),
    ("fine-tune", {"metadata": {}}, "metadata", "unknown_field", "metadata"),
    ("job", {"n_epochs": 3}, "n_epochs", "unknown_field", "n_epochs"),
    ("job", {"nodes": 3}, "nodes", "unknown_field", '"finetune": {"resources": {...}}'),
    ("job", {"hyperparameters": {"beta": 1}}, "hyperparameters.beta", "unknown_field", "beta"),
    ("job", {"hyperparameters": [1]}, "hyperparameters", "invalid_type", "a list"),
    ("job", {"method": "supervised"}, "method", "invalid_type", "'supervised'"),
    ("job", {"method": {"type": "dpo", "dpo": {}}}, "method.type", "unsupported_method", "dpo"),
    ("job", {"method": {"type": "reinforcement"}}, "method.type", "unsupported_method", "method"),
    ("job", {"method": {"type": 3}}, "method.type", "unsupported_method", "3"),
    ("job", {"method": {"dpo": {}}}, "method.dpo", "unknown_field", "method.dpo"),
    ("job", {"method": {"supervised": {"x": 1}}}, "method.supervised.x", "unknown_field", "x"),
    ("job", {"method": {"supervised": {"hyperparameters": {"x": 1}}}}, f"{SUPERVISED}.x",
     "unknown_field", "x"),
    ("job", {"method": {"supervised": {"hyperparameters": {"n_epochs": 2}}},
             "hyperparameters": {"n_epochs": 3}}, "hyperparameters.n_epochs",
     "conflicting_fields", "differ"),
    ("job", {"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations",
     "unsupported_integration", "not supported"),
    ("job", {"integrations": {}}, "integrations", "unsupported_integration", "not supported"),
    ("job", {"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value", "16"),
    ("job", {"metadata": {"x" * 65: ""}}, "metadata", "invalid_value", "64"),
    ("job", {"metadata": {"x": "y" * 513}}, "metadata", "invalid_value", "512"),
    ("job", {"metadata": {"x": 3}}, "metadata", "invalid_value", "texts"),
    ("job", {"metadata": ["x"]}, "metadata", "invalid_value", "JSON object"),
    ("job", {"finetune": 3}, "finetune", "invalid_type", "a JSON object"),
    ("job", {"finetune": {"model": "curie"}}, "model", "conflicting_fields", "finetune.model"),
    ("fine-tune", {"n_epochs": 2, "finetune": {"hyperparameters": {"nEpochs": 3}}}, "n_epochs",
     "conflicting_fields", "finetune.hyperparameters.nEpochs"),
    ("job", {"seed": 2, "finetune": {"hyperparameters": 3}}, "hyperparameters",
     "conflicting_fields", "differ"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "body", "param", "code", "words"), ROWS)
def test_what_is_wrong_is_named(
    form: Form, body: JsonObject, param: str, code: str, words: str
) -> None:
    problem = refusal(body, form)
    assert (problem.status, problem.param, problem.code) == (400, param, code)
    assert words in problem.message
    assert len(problem.message) < 800


@pytest.mark.parametrize("value", [99, -1, "four", 2.5, [], {"a": 1}, True])
def test_the_values_of_hyperparameters_are_for_the_api_server(value: Any) -> None:
    assert manifest({"n_epochs": value}, "fine-tune")["spec"]["hyperparameters"] == {
        "nEpochs": value
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["model", "training_file", "validation_file", "suffix", "seed", "metadata", "method",
     "hyperparameters", "integrations", "finetune", "n_epochs", "x"]
)  # fmt: skip


@pytest.mark.parametrize("value", [5, [], "x", {"nEpochs": []}])
def test_the_extension_is_for_the_api_server(value: Any) -> None:
    found = manifest({"finetune": {"hyperparameters": value, "resources": value}})["spec"]
    assert (found["hyperparameters"], found["resources"]) == (value, value)


@given(body=st.dictionaries(FIELDS, JSON, max_size=5), form=st.sampled_from(get_args(Form)))
def test_every_body_has_an_answer(body: JsonObject, form: Form) -> None:
    try:
        made = manifest(body, form)
    except Problem as problem:
        assert problem.status == 400
        assert problem.param
    else:
        assert made["spec"]["trainingFile"] in {ADDRESS, body.get("training_file")}


@given(
    metadata=st.dictionaries(st.text(max_size=64), st.text(max_size=512), max_size=16),
)
def test_metadata_survives_the_annotation(metadata: dict[str, str]) -> None:
    assert is_metadata(metadata)
    assert read_metadata({ANNOTATION_METADATA: write_metadata(metadata)}) == metadata


@given(st.text())
def test_an_annotation_of_a_user_is_never_an_error(text: str) -> None:
    found = read_metadata({ANNOTATION_METADATA: text})
    assert found is None or is_metadata(found)


def test_equal_requests_of_a_caller_have_one_label() -> None:
    body, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    label = request_label("anna", "/v1/fine-tunes", body)
    assert label == request_label("anna", "/v1/fine-tunes", other)
    assert len(label) == 32
    different = {
        request_label("bert", "/v1/fine-tunes", body),
        request_label("anna", "/v1/fine_tuning/jobs", body),
        request_label("anna", "/v1/fine-tunes", {"a": 1}),
        request_label("anna", "/v1/fine-tunes", '{"a":1,"b":2}'),
        request_label("anna", "/v1/fine-tunes", "\udcff"),
    }
    assert len(different | {label}) == 6
