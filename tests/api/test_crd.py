"""The CRDs, which are generated from the pydantic models."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from finetune_api.crd import finetune_crd, model_crd, structural
from finetune_api.crd.rules import MUTABLE_FIELDS, MUTABLE_MODEL_FIELDS
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.hyperparameters import DEFAULT_MARK

REQUIRED = {"spec.trainingFiles[].uri"}  # once their parents are set
ROOT = Path(__file__).resolve().parents[2]


def walk(schema: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield where, schema
    for name, item in schema.get("properties", {}).items():
        yield from walk(item, f"{where}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from walk(schema[keyword], f"{where}[]")


def parts(crd: dict[str, Any], part: str = "spec") -> list[tuple[str, dict[str, Any]]]:
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return list(walk(root["properties"][part], part))


@pytest.mark.parametrize("crd", [finetune_crd(), model_crd()])
def test_every_field_that_a_user_writes_has_a_bound(crd: dict[str, Any]) -> None:
    for where, schema in parts(crd):
        kind = schema.get("type")
        if kind == "string" and "enum" not in schema:
            assert "maxLength" in schema, where
        elif kind == "array":
            assert "maxItems" in schema, where
        elif kind in {"integer", "number"} and "metrics" not in where:
            assert "minimum" in schema, where
        elif kind == "object" and "properties" not in schema:
            assert "maxProperties" in schema, where


@pytest.mark.parametrize("crd", [finetune_crd(), model_crd()])
def test_every_field_has_a_description(crd: dict[str, Any]) -> None:
    for where, schema in [*parts(crd), *parts(crd, "status")]:
        is_scalar_item = where.endswith("[]") and "properties" not in schema
        if not is_scalar_item:
            text = schema.get("description", "")
            assert text.endswith(".") and text[0].isupper(), f"{where}: {text}"


def test_every_optional_field_of_a_finetune_documents_its_default() -> None:
    depends = {"spec.hyperparameters.classificationNClasses"}  # on the other fields
    for where, schema in parts(finetune_crd()):
        is_group = "properties" in schema or where.endswith("[]")
        if is_group or "default" in schema or where in {*REQUIRED, *depends}:
            continue
        assert DEFAULT_MARK in schema["description"], where


def test_the_crd_leaves_room_for_the_annotation_of_kubectl_apply() -> None:
    assert len(json.dumps(finetune_crd())) < 100_000


def test_only_fields_that_control_a_run_may_change() -> None:
    check_fixed(finetune_crd(), MUTABLE_FIELDS)
    check_fixed(model_crd(), MUTABLE_MODEL_FIELDS)


def check_fixed(crd: dict[str, Any], mutable: Set[str]) -> None:
    """Only mutable fields have neither a rule of their own nor one against adding them."""
    spec = dict(parts(crd))["spec"]
    (stays,) = spec["x-kubernetes-validations"]
    for field, schema in spec["properties"].items():
        own = [item["rule"] for item in schema.get("x-kubernetes-validations", [])]
        assert ("self == oldSelf" in own) == (field not in mutable), field
        is_optional = "default" not in schema and field not in spec.get("required", [])
        assert (f"oldSelf.{field})" in stays["rule"]) == (is_optional and field not in mutable)


def test_rules_on_new_finetunes_read_only_what_cannot_change() -> None:
    """They are not evaluated any more once there is a status."""
    root = finetune_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = [item["rule"] for item in root["x-kubernetes-validations"]]
    read = {field for rule in rules for field in re.findall(r"self\.spec\.(\w+)", rule)}
    assert len(read) > 5
    assert not read & MUTABLE_FIELDS
    assert {rule.partition(" || (")[0] for rule in rules if "metadata.name" not in rule} == {
        "has(self.status)"
    }


def test_no_field_gives_users_the_permissions_of_the_operator() -> None:
    names = {where.rsplit(".", 1)[-1].lower() for where, _ in parts(finetune_crd())}
    forbidden = {"image", "command", "args", "env", "volumes", "serviceaccountname", "hostpath"}
    forbidden |= {"hostnetwork", "privileged", "nodename", "securitycontext", "endpoint"}
    assert not names & forbidden


def test_the_spec_has_all_fields() -> None:
    wanted = (
        "model suffix trainingFile trainingFiles validationFile hyperparameters method resources "
        "runtime podLabels podAnnotations "
        "deepspeed storage output queueName priorityClassName scheduling suspend cancel "
        "maxRestarts activeDeadlineSeconds pendingDeadlineSeconds stallSeconds "
        "ttlSecondsAfterFinished reuse dryRun dataTolerance"
    )
    assert set(structural(FineTuneSpec)["properties"]) == set(wanted.split())


def test_an_unknown_keyword_raises() -> None:
    class Strange(BaseModel):
        either: int | str

    with pytest.raises(ValueError, match="union"):
        structural(Strange)


def test_the_files_match_the_models() -> None:
    done = subprocess.run(
        [sys.executable, "crds/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
