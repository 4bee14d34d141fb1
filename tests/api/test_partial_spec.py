"""`fineTune` of a catalog entry: fields of a spec that an administrator sets for a base model."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from finetune_api.catalog import CATALOG, CatalogModel
from finetune_api.catalog.partial_spec import REFUSED, allowed_fields, check_partial_spec
from finetune_api.crd import finetune_crd
from finetune_api.finetune_spec import FineTuneSpec

CHART = Path(__file__).parents[2] / "charts/finetune-operator"
LORA = {
    "method": {"type": "lora", "rank": 16},
    "resources": {"gpusPerNode": 1},
    "queueName": "gpus",
}
EVERYTHING = {
    **LORA,
    "hyperparameters": {"nEpochs": 2, "learningRate": 1e-5, "classificationBetas": [0.5, 2]},
    "runtime": "nvidia",
    "deepspeed": {"zeroStage": 3, "offload": "parameters"},
    "priorityClassName": "batch",
    "scheduling": {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"operator": "Exists"}]},
    "podLabels": {"team": "nlp"},
    "podAnnotations": {"example.com/a": "b"},
    "dataTolerance": 0.01,
    "maxRestarts": 1,
    "activeDeadlineSeconds": 3600,
    "pendingDeadlineSeconds": 3600,
    "stallSeconds": 600,
    "ttlSecondsAfterFinished": 0,
    "reuse": "Never",
}


def entry(fine_tune: Any) -> CatalogModel:
    fields = CATALOG[-1].to_dict() | {"fineTune": fine_tune}
    return CatalogModel.model_validate_json(json.dumps(fields))


def test_a_partial_spec_stays_as_it_was_written() -> None:
    assert entry(LORA).fine_tune == LORA
    assert entry(EVERYTHING).fine_tune == EVERYTHING
    assert set(EVERYTHING) == set(allowed_fields())


def test_a_partial_spec_is_a_part_of_a_spec_that_the_crd_accepts() -> None:
    spec = {**check_partial_spec(EVERYTHING), "trainingFile": "s3://acme/train.jsonl"}
    (version,) = finetune_crd()["spec"]["versions"]
    jsonschema.validate({"spec": spec}, version["schema"]["openAPIV3Schema"])
    assert FineTuneSpec.model_validate(spec).method.rank == 16


def test_an_entry_needs_none_and_the_operator_has_no_use_for_it() -> None:
    assert CATALOG[-1].fine_tune is None
    assert "fineTune" not in CATALOG[-1].to_dict()
    assert entry(LORA).reference == CATALOG[-1].reference


def test_null_is_a_field_that_is_left_out() -> None:
    written = {"queueName": None, "resources": {"gpusPerNode": 2, "cpu": None}}
    assert entry(written).fine_tune == {"resources": {"gpusPerNode": 2}}
    assert entry(None).fine_tune is None
    assert entry({}).fine_tune == {}


@pytest.mark.parametrize("field", REFUSED)
def test_what_each_finetune_or_the_chart_sets_is_refused(field: str) -> None:
    for value in ("s3://acme/x", None, True):
        with pytest.raises(ValidationError, match=f"{field} cannot be set for a base model: "):
            entry({field: value})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"resource": {}}, "resource is not a field of a FineTune. Correct its name, or remove"),
        ({"queue_name": "gpus"}, "queue_name is not a field of a FineTune"),
        ({"resources": {"gpus": 1}}, "resources.gpus is not a field of a FineTune"),
        (
            {"scheduling": {"tolerations": [{}, {"keyy": "a"}]}},
            "scheduling.tolerations[1].keyy is not a field",
        ),
        ({"resources": {"gpusPerNode": 65}}, "resources.gpusPerNode: Input should be less than"),
        ({"resources": {"gpusPerNode": "1"}}, "resources.gpusPerNode: Input should be a valid int"),
        ({"resources": None}, "resources: Input should be a valid dictionary"),
        ({"method": "lora"}, "method: Input should be a valid dictionary"),
        ({"queueName": "GPUs"}, "queueName: String should match pattern"),
        ({"hyperparameters": {"nEpochs": True}}, "hyperparameters.nEpochs: Input should be"),
        ([], "Input should be an object"),
    ],
)
def test_a_field_that_the_api_server_would_refuse_is_refused_at_the_start(
    value: Any, words: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        entry(value)


def test_every_refused_field_is_one_of_the_spec() -> None:
    fields = {field.alias for field in FineTuneSpec.model_fields.values()}
    assert set(REFUSED) < fields
    assert set(REFUSED) | set(allowed_fields()) == fields


def test_the_schema_of_the_chart_has_the_same_fields_and_types() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    chart = schema["properties"]["models"]["items"]["properties"]["fineTune"]
    assert chart["additionalProperties"] is False
    (version,) = finetune_crd()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    types = {name: {"type": spec[name]["type"]} for name in allowed_fields()}
    assert chart["properties"] == types


def test_the_example_in_the_readme_of_the_chart_is_valid() -> None:
    readme = (CHART / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(fineTune:.*?)```", readme, re.DOTALL)
    assert entry(yaml.safe_load(block)["fineTune"]).fine_tune == LORA
