"""Each FineTune in both APIs, as golden files. `--update-golden` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from openai.types import FileObject, Model, ModelDeleted
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from finetune_api.catalog import CATALOG
from finetune_api.finetune import FineTune
from finetune_api.model import Model as OurModel
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_gateway.wire.events import job_events
from finetune_gateway.wire.file_objects import KnownFiles, StoredFile, file_object
from finetune_gateway.wire.fine_tunes import fine_tune_object
from finetune_gateway.wire.ids import Artifact, file_time
from finetune_gateway.wire.jobs import job_object
from finetune_gateway.wire.metrics import read_rows
from finetune_gateway.wire.models import catalog_object, deleted_object, model_object
from tests.gateway.fine_tune_lives import LIVES, UPLOADED, new, succeeded
from tests.support.objects import TRAINED_ROOT

FOLDER = Path(__file__).parent / "golden"
FILE_ID = "file-01m7yw6nw0jv8eb33q8pb9ssjv"
RESULTS = b"step,elapsed_tokens,training_loss,validation_loss\n1,10,2.5,\n2,20,2,2.25\n"


def known_files() -> KnownFiles:
    uri = S3Uri.parse(UPLOADED)
    stored = StoredFile(FILE_ID, "fine-tune", "train.jsonl", 1234, file_time(FILE_ID), uri)
    return KnownFiles(
        root=S3Uri.parse("s3://bucket/gateway/team/files"),
        stored={UPLOADED: stored},
        published={f"{TRAINED_ROOT}/results.csv": Artifact("results", "tone")},
    )


def events_of(finetune: FineTune) -> list[JsonObject]:
    """With metrics once there is an attempt."""
    rows = read_rows(RESULTS) if finetune.status.attempts else []
    return [event.build() for event in job_events(finetune, rows)]


def job_of(finetune: FineTune) -> JsonObject:
    return job_object(finetune, known_files(), "acme")


@pytest.mark.parametrize("case", LIVES)
def test_the_objects_are_the_golden_ones(case: str, request: pytest.FixtureRequest) -> None:
    finetune = LIVES[case]()
    shown = {
        "fine-tune": fine_tune_object(finetune, known_files(), "acme"),
        "job": job_of(finetune),
        "events": events_of(finetune),
    }
    text = yaml.safe_dump(shown, sort_keys=False, width=1000)
    path = FOLDER / f"{case}.yaml"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("case", LIVES)
def test_the_newest_client_accepts_each_job_and_event_strictly(case: str) -> None:
    finetune = LIVES[case]()
    job = job_of(finetune)
    assert FineTuningJob.model_fields.keys() <= job.keys()
    if case == "paused":  # documented by OpenAI, and missing in the types of its clients
        assert job["status"] == "paused"
        job["status"] = "queued"
    FineTuningJob.model_validate(job, strict=True)
    for event in events_of(finetune):
        FineTuningJobEvent.model_validate(event, strict=True)


@pytest.mark.parametrize(
    ("case", "old", "status"),
    [
        ("new", "pending", "queued"),
        ("validating", "pending", "validating_files"),
        ("unschedulable", "pending", "queued"),
        ("queued", "pending", "queued"),
        ("paused", "pending", "paused"),
        ("running", "running", "running"),
        ("succeeded", "succeeded", "succeeded"),
        ("failed", "failed", "failed"),
        ("cancelled", "cancelled", "cancelled"),
    ],
)
def test_each_api_has_its_own_word_for_the_state(case: str, old: str, status: str) -> None:
    finetune = LIVES[case]()
    assert fine_tune_object(finetune, known_files(), "acme")["status"] == old
    assert job_of(finetune)["status"] == status


def test_a_list_of_the_fine_tunes_api_has_no_events() -> None:
    assert "events" not in fine_tune_object(succeeded(), known_files(), "acme", has_events=False)


def test_several_weighted_files_are_all_shown() -> None:
    finetune = LIVES["of-kubectl"]()
    old = fine_tune_object(finetune, known_files(), "acme")
    assert [file["id"] for file in old["training_files"]] == [FILE_ID, "s3://acme/old.csv"]
    job = job_of(finetune)
    assert job["training_file"] == FILE_ID
    assert job["training_files"][1] == {"id": "s3://acme/old.csv", "weight": 1}


def test_an_absolute_learning_rate_has_no_multiplier_to_choose() -> None:
    assert job_of(LIVES["of-kubectl"]())["hyperparameters"]["learning_rate_multiplier"] is None
    assert job_of(new())["hyperparameters"]["learning_rate_multiplier"] == "auto"


def test_results_outside_the_output_of_the_chart_keep_their_address() -> None:
    files = KnownFiles(root=known_files().root)
    address = f"{TRAINED_ROOT}/results.csv"
    assert job_object(succeeded(), files, "acme")["result_files"] == [address]
    shown = fine_tune_object(succeeded(), files, "acme")["result_files"][0]
    assert (shown["id"], shown["filename"], shown["bytes"]) == (address, "results.csv", None)


def test_an_uploaded_file_has_its_id_without_the_store() -> None:
    files = KnownFiles(root=known_files().root)
    shown = fine_tune_object(new(), files, "acme")["training_files"][0]
    assert (shown["id"], shown["filename"], shown["bytes"]) == (FILE_ID, "train.jsonl", None)
    assert shown["created_at"] == int(file_time(FILE_ID).timestamp())


def test_the_newest_client_accepts_files_and_models_strictly() -> None:
    FileObject.model_validate(file_object(known_files().stored[UPLOADED]), strict=True)
    for entry in CATALOG:
        Model.model_validate(catalog_object(entry), strict=True)
    ours = OurModel.parse(
        {
            "metadata": {"name": "ada-ft-team-tone", "creationTimestamp": "2026-11-21T12:00:00Z"},
            "spec": {
                "id": "ada:ft-team:tone",
                "uri": "s3://bucket/out/model",
                "base": "ada",
                "pretrainingLearningRate": 0.001,
                "contextLength": 256,
            },
        }
    )
    shown = model_object(ours, "acme")
    Model.model_validate(shown, strict=True)
    assert (shown["owned_by"], shown["root"], shown["parent"]) == ("acme", "ada", "ada")
    assert (
        model_object(ours.replace(spec=ours.spec.replace(parent="ada:ft-team:x")), "acme")["parent"]
        == "ada:ft-team:x"
    )
    ModelDeleted.model_validate(deleted_object("ada:ft-team:tone", "model"), strict=True)


def test_every_object_is_json() -> None:
    for build in LIVES.values():
        finetune = build()
        assert json.loads(json.dumps(job_of(finetune))) == job_of(finetune)
