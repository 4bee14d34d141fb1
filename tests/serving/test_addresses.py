"""Which addresses of models a request may name."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.uris import S3Uri
from finetune_serving.models.addresses import (
    DIGEST_HEADER,
    URI_HEADER,
    FixedModels,
    GatewayModels,
    ModelAddress,
    is_below,
)
from finetune_web.problems import Problem

ROOT = S3Uri.parse("s3://acme/finetunes/ml")
FIXED = FixedModels({"local": "folder", "far": "s3://acme/far"})
GATEWAY = GatewayModels([ROOT], FIXED)
DIGEST = "0" * 64


def test_the_command_line_names_folders_and_addresses() -> None:
    assert FIXED.find("local", {}) == ModelAddress("local", Path("folder"))
    assert FIXED.find("far", {}) == ModelAddress("far", S3Uri("acme", "far"))
    assert FIXED.find("other", {}) is None
    assert FIXED.names() == ["local", "far"]


def test_the_gateway_names_an_address_and_a_digest() -> None:
    headers = {URI_HEADER: "s3://acme/finetunes/ml/tone-1/model", DIGEST_HEADER: DIGEST}
    found = GATEWAY.find("tiny:ft-acme", headers)
    assert found == ModelAddress("tiny:ft-acme", S3Uri("acme", "finetunes/ml/tone-1/model"), DIGEST)
    assert GATEWAY.find("local", {}) == FIXED.find("local", {})


def test_without_trust_an_address_is_refused() -> None:
    for header in (URI_HEADER, DIGEST_HEADER):
        with pytest.raises(Problem, match="--trust-gateway"):
            FIXED.find("local", {header: DIGEST})


@pytest.mark.parametrize(
    "uri",
    [
        "s3://acme/finetunes/ml",
        "s3://acme/finetunes/ml/",
        "s3://acme/finetunes/mlx/model",
        "s3://acme/finetunes/ml/../other/model",
        "s3://acme/finetunes/ml/./x",
        "s3://acme/finetunes/ml//x",
        "s3://other/finetunes/ml/model",
        "s3://acme",
        "hf://acme/model",
        "/etc",
        "",
        "s3://acme/finetunes/ml/\udce4",
    ],
)
def test_an_address_elsewhere_is_refused(uri: str) -> None:
    with pytest.raises(Problem) as caught:
        GATEWAY.find("m", {URI_HEADER: uri, DIGEST_HEADER: DIGEST})
    assert caught.value.status == 400


@pytest.mark.parametrize("digest", [None, "", "0" * 63, "g" * 64, DIGEST + "\n"])
def test_an_address_needs_a_digest(digest: str | None) -> None:
    headers = {URI_HEADER: f"{ROOT}/x/model"} | ({} if digest is None else {DIGEST_HEADER: digest})
    with pytest.raises(Problem, match="must be sent together"):
        GATEWAY.find("m", headers)


@given(st.text(string.ascii_letters + "./%", max_size=30))
def test_only_what_is_below_the_prefix_is_accepted(rest: str) -> None:
    try:
        uri = S3Uri.parse(f"s3://acme/finetunes/ml{rest}")
    except ValueError:
        return
    assert is_below(uri, ROOT) == str(uri).startswith(f"{ROOT}/")
