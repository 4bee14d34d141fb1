"""What a FineTune needs before it exists, compared with the rules of the CRD."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.names import FINALIZER_MODEL
from finetune_gateway.kube_errors import KubeError
from finetune_local.admission import admit, change

SPEC = {"model": "ada", "trainingFile": "s3://finetune-local/a.jsonl"}


def finetune(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "a"}, "spec": {**SPEC, **spec}}


@pytest.mark.parametrize("gpus", [0, 4])
def test_a_fine_tune_gets_this_machine(gpus: int) -> None:
    asked = {"nodes": 8, "gpusPerNode": 8, "memory": "64Gi"}
    found = admit(finetune(resources=asked), gpus)
    assert found["spec"]["resources"] == {"nodes": 1, "gpusPerNode": gpus, "memory": "64Gi"}
    assert found["status"] == {}
    FineTuneSpec.model_validate(found["spec"], strict=True)


@pytest.mark.parametrize(
    ("spec", "status", "field", "text"),
    [
        ({"hyperparameters": {"nEpochs": 99}}, 422, "spec.hyperparameters.nEpochs", "99"),
        ({"hyperparameters": {"nEpochs": "2"}}, 422, "spec.hyperparameters.nEpochs", "must be"),
        ({"suffix": "x" * 65}, 422, "spec.suffix", "64"),
        ({"trainingFile": "/etc/passwd"}, 422, "spec.trainingFile", "pattern"),
        ({"model": None}, 422, "spec.model", "must be"),
        (
            {"hyperparameters": {"computeClassificationMetrics": True}},
            *(422, "spec", "needs a validationFile"),
        ),
    ],
)
def test_an_invalid_field_is_refused_as_by_the_api_server(
    spec: dict[str, Any], status: int, field: str, text: str
) -> None:
    with pytest.raises(KubeError) as caught:
        admit(finetune(**spec), 0)
    assert caught.value.status == status
    found, message = caught.value.causes[0]
    assert found == field
    assert text in message


def test_an_unknown_field_is_refused_with_its_path() -> None:
    with pytest.raises(KubeError, match=r'unknown field "spec\.hyperparameters\.epochs"'):
        admit(finetune(hyperparameters={"epochs": 2}), 0)


@pytest.mark.parametrize("name", ["", "../a", "A", "a/b", "a" * 254, "a\n", "-a"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(KubeError) as caught:
        admit({"metadata": {"name": name}, "spec": SPEC}, 0)
    assert caught.value.causes[0][0] == "metadata.name"


def test_only_mutable_fields_change() -> None:
    made = admit(finetune(), 0)
    changed = change(made, "finetunes", {"spec": {"suspend": True}})
    assert changed["spec"] == {**made["spec"], "suspend": True}
    assert changed["metadata"]["generation"] == 2
    with pytest.raises(KubeError) as caught:
        change(made, "finetunes", {"spec": {"model": "curie"}})
    assert caught.value.causes[0][0] == "spec.model"


def test_a_cancellation_is_final() -> None:
    cancelled = change(admit(finetune(), 0), "finetunes", {"spec": {"cancel": True}})
    with pytest.raises(KubeError, match="final"):
        change(cancelled, "finetunes", {"spec": {"cancel": False}})


def test_a_model_that_is_deleted_with_its_files_waits_for_them() -> None:
    model = {"metadata": {"name": "m"}, "spec": {"id": "ada:ft-x"}}
    held = change(model, "models", {"spec": {"deletionPolicy": "Delete"}})
    assert held["metadata"]["finalizers"] == [FINALIZER_MODEL]
    freed = change(held, "models", {"spec": {"deletionPolicy": "Retain"}})
    assert freed["metadata"]["finalizers"] == []
