"""The training files of a spec: the rules between them, and the tasks that other versions read."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.assignments import prepare_task, with_prepared
from finetune_api.finetune import FineTune
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.finetune_status import Resolved
from finetune_api.hyperparameters import HyperparameterRules
from finetune_api.limits import DataLimits
from finetune_api.outcome import Outcome
from finetune_api.tasks import BaseModelRef, FallbackPlan, PrepareTask, RuntimeRef
from finetune_api.training_files import MOST_FILES, TrainingFileCounts
from tests.support import previous
from tests.support.objects import prepared

A, B, C = ({"uri": f"s3://acme/{name}.jsonl"} for name in "abc")
RESOLVED = Resolved(
    base=BaseModelRef(
        name="ada",
        root="ada",
        uri="s3://acme/ada",
        pretraining_learning_rate=0.001,
        context_length=256,
    ),
    runtime=RuntimeRef(name="cpu", trainer_image="t", prepare_image="p", accelerator="cpu"),
    organization="team",
    output="s3://acme/out",
    secret_name="s3",
)


def task(**spec: Any) -> PrepareTask:
    metadata = {"name": "tone", "namespace": "team", "uid": "12345678-9abc"}
    finetune = FineTune.parse({"metadata": metadata, "spec": spec})
    return prepare_task(finetune, RESOLVED, HyperparameterRules(), DataLimits())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "trainingFile is required, or trainingFiles for several files"),
        (
            {"trainingFile": A["uri"], "trainingFiles": [B]},
            "set trainingFile or trainingFiles, not both",
        ),
        ({"trainingFiles": []}, "at least 1 item"),
        ({"trainingFiles": [A] * 17}, "at most 16 items"),
        (
            {"trainingFiles": [A, B, A]},
            r"trainingFiles\[2\].uri is the same file as trainingFiles\[0\]",
        ),
        (
            {"trainingFiles": [A | {"weight": 3}, B, C]},
            r"trainingFiles\[1\].weight is missing: set a weight for every file or for none",
        ),
        ({"trainingFiles": [A | {"weight": 0}, B | {"weight": 1}]}, "greater than or equal"),
        ({"trainingFiles": [A | {"weight": 1e9}, B | {"weight": 1}]}, "less than or equal"),
        ({"trainingFiles": [A | {"weight": "nan"}, B | {"weight": 1}]}, "weight"),
        ({"trainingFiles": [{"uri": "train.jsonl"}]}, "string_pattern_mismatch"),
        ({"trainingFiles": [{"weight": 1}]}, "uri"),
    ],
)
def test_a_spec_that_breaks_a_rule_is_refused_with_the_field(
    spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        FineTuneSpec.model_validate(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"trainingFiles": [A, B, C]},
        {"trainingFiles": [A | {"weight": 0.001}, B | {"weight": 1000}]},
        {"trainingFiles": [A | {"weight": 3}]},
    ],
)
def test_a_spec_that_keeps_the_rules_is_accepted(spec: dict[str, Any]) -> None:
    assert FineTuneSpec.model_validate(spec).training_data[0].uri == A["uri"]


def test_the_task_of_a_single_file_is_the_same_in_both_fields() -> None:
    single = task(trainingFile=A["uri"]).to_json()
    assert '"trainingFile":"s3://acme/a.jsonl"' in single
    assert "trainingFiles" not in single
    assert task(trainingFiles=[A]).to_json() == single
    assert task(trainingFiles=[A | {"weight": 3}]).to_json() == single


def test_a_task_of_several_files_has_them_in_their_order() -> None:
    made = task(trainingFiles=[B | {"weight": 3}, A | {"weight": 0.5}])
    assert PrepareTask.model_validate_json(made.to_json()) == made
    assert made.training_file == B["uri"]
    assert [(file.uri, file.weight) for file in made.training_files or []] == [
        (B["uri"], 3),
        (A["uri"], 0.5),
    ]


@pytest.mark.slow
def test_the_previous_version_reads_the_task_and_knows_only_the_first_file() -> None:
    """The operator then refuses its result, because the result lacks the counts of the files."""
    made = task(trainingFiles=[A | {"weight": 3}, B | {"weight": 1}])
    known = previous.parse("finetune_api.tasks:PrepareTask", made.to_json())
    assert known == made.replace(training_files=None).to_json()


def test_the_counts_of_the_most_files_fit_into_a_termination_message() -> None:
    counts = TrainingFileCounts(examples=10**9, epoch_examples=10**11)
    plan = FallbackPlan(
        zero_stage=3,
        offload="parameters",
        memory_per_rank_gib=123.45,
        memory_per_pod_gib=1234.56,
    )
    outcome = prepared(
        training_files=[counts] * MOST_FILES,
        fallbacks=[plan] * 6,
        dataset=f"s3://acme/{'x' * 800}",
        advice=["a sentence of advice " * 20] * 8,
    )
    found = Outcome.parse(outcome.to_termination_message())
    assert found is not None and found.prepared is not None
    assert found.prepared.training_files == [counts] * MOST_FILES
    assert with_prepared(RESOLVED, found.prepared).training_files == [counts] * MOST_FILES
