"""The addresses of results and reports come from the chart's output and the object's identity."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetune import FineTune
from finetune_gateway.files.artifacts import PublishedFiles
from finetune_gateway.wire.ids import Artifact

UID = "0a1b2c3d-0000-4000-8000-000000000001"
OUTPUT = "s3://bucket/out"
RESULTS, REPORT = Artifact("results", "a"), Artifact("report", "a")


def finetune(name: str = "a", uid: str = UID, **parts: Any) -> FineTune:
    spec = {"model": "ada", "trainingFile": "s3://bucket/x.jsonl"} | parts.pop("spec", {})
    metadata = {"name": name, "namespace": "other", "uid": uid}
    return FineTune.parse({"metadata": metadata, "spec": spec, "status": parts})


def address(artifact: Artifact, found: FineTune, output: str = OUTPUT) -> str | None:
    uri = PublishedFiles(output, "ml").address(artifact, found)
    return None if uri is None else str(uri)


def test_the_address_is_computed() -> None:
    assert address(RESULTS, finetune()) == "s3://bucket/out/ml/a-0a1b2c3d/results.csv"
    assert address(REPORT, finetune()) == "s3://bucket/out/ml/a-0a1b2c3d/report.html"
    assert address(RESULTS, finetune(), "s3://bucket/out/") == address(RESULTS, finetune())


def test_an_adopted_model_has_the_files_of_the_former_finetune() -> None:
    files = ["s3://bucket/out/ml/a-ffffffff/results.csv"]
    assert address(RESULTS, finetune(resultFiles=files)) == files[0]
    assert address(REPORT, finetune(resultFiles=files)) == (
        "s3://bucket/out/ml/a-ffffffff/report.html"
    )


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/out/ml/b-ffffffff/results.csv",
        "s3://bucket/out/other/a-ffffffff/results.csv",
        "s3://bucket/out/ml/a-FFFFFFFF/results.csv",
        "s3://bucket/out/ml/a-fffffff/results.csv",
        "s3://bucket/out/ml/a-ffffffff/secret.csv",
        "s3://bucket/out/ml/a-ffffffff/../a-ffffffff/results.csv",
        "s3://bucket/out/ml//a-ffffffff/results.csv",
        "s3://other/out/ml/a-ffffffff/results.csv",
        "s3://bucket/out/ml/a-ffffffff/results.csv?x",
        "file:///etc/passwd",
        "",
    ],
)
def test_any_other_address_of_a_status_is_ignored(text: str) -> None:
    assert address(RESULTS, finetune(resultFiles=[text])) == address(RESULTS, finetune())


@given(st.text(max_size=80), st.text(alphabet="af0-/.", max_size=12))
def test_no_status_leads_outside_of_the_prefix(text: str, middle: str) -> None:
    for address_of_status in (text, f"{OUTPUT}/ml/a-{middle}/results.csv"):
        found = address(RESULTS, finetune(resultFiles=[address_of_status]))
        assert found is not None
        assert found.startswith(f"{OUTPUT}/ml/a-")
        assert found.endswith("/results.csv")
        assert found.count("/") == f"{OUTPUT}/ml/a-x/results.csv".count("/")
        assert ".." not in found


def test_a_finetune_with_another_output_has_no_files_here() -> None:
    assert address(RESULTS, finetune(spec={"output": "s3://mine/out"})) is None
    assert address(RESULTS, finetune(spec={"output": f"{OUTPUT}/"})) is not None
    assert address(RESULTS, finetune(), output="") is None


@pytest.mark.parametrize("uid", ["", "0a1b", "../../xx", "0A1B2C3D-"])
def test_a_uid_that_is_none_has_no_address(uid: str) -> None:
    assert address(RESULTS, finetune(uid=uid)) is None


def test_another_finetune_than_that_of_the_id_has_no_address() -> None:
    assert address(RESULTS, finetune("b")) is None


def test_an_output_that_is_no_address_ends_the_start() -> None:
    with pytest.raises(ValueError, match="not an S3 address"):
        PublishedFiles("/var/out", "ml")
