"""Requests from the OpenAPI document, valid and invalid: no 500, and always the envelope.

A request that the document allows is refused only for a reason that the document cannot express,
such as a file that does not exist. One that it does not allow is refused.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from finetune_gateway.routes import context
from finetune_gateway.wire.openapi.document import build_document
from tests.gateway.folder_gateway import KEY, served

pytestmark = pytest.mark.slow

EXAMPLES = 25  # for each of the 33 operations
SECONDS = 10
STREAM = "text/event-stream"
ENVELOPE = {"message", "type", "param", "code"}

ROW = b'{"prompt": "a ->", "completion": " b"}\n'

schema = schemathesis.openapi.from_dict(build_document())
schema.config.output.truncation.enabled = False


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("gateway")) as found:
        yield found


def check_answer(response: Any, case: Any) -> None:
    """What holds for every answer, whatever the request is."""
    assert response.status_code < 500 or response.status_code == 503, response.text
    headers = {name: values[0] for name, values in response.headers.items()}
    assert headers["x-request-id"].startswith("req-")
    if response.status_code == 200:
        return
    assert headers["content-type"].startswith("application/json"), headers
    found = json.loads(response.text)
    assert found.keys() == {"error"}
    error = found["error"]
    assert error.keys() == ENVELOPE
    assert error["message"].strip()
    assert "Traceback" not in error["message"]


class Known:
    """Ids that exist, in place of every second one, so that requests get beyond 404."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._count = 0

    def put_into(self, case: Any) -> None:
        self._count += 1
        if self._count % 2:
            return
        first = case.operation.path.split("/")[2]
        for name in case.path_parameters or {}:
            if name == "model" or first == "models":
                case.path_parameters[name] = "ada:ft-acme:one"
            elif first in {"fine-tunes", "fine_tuning"}:
                case.path_parameters[name] = self._create("fine-tunes", self._job())
            elif first == "uploads":
                asked = {"bytes": len(ROW), "filename": "a.jsonl", "purpose": "fine-tune"}
                case.path_parameters[name] = self._create("uploads", asked)
            else:
                case.path_parameters[name] = self._file()
        if isinstance(case.body, dict):
            known = self._job() if "training_file" in case.body else {"model": "ada:ft-acme:two"}
            case.body.update({key: known[key] for key in known.keys() & case.body.keys()})

    def _job(self) -> dict[str, str]:
        return {"training_file": self._file(), "model": "ada"}

    def _file(self) -> str:
        form = {"files": {"file": ("a.jsonl", ROW)}, "data": {"purpose": "fine-tune"}}
        return self._post("files", **form)

    def _create(self, path: str, body: dict[str, Any]) -> str:
        return self._post(path, json=body)

    def _post(self, path: str, **sent: Any) -> str:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = requests.post(f"{self._url}/v1/{path}", headers=headers, timeout=SECONDS, **sent)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


@pytest.fixture(scope="module")
def known(url: str) -> Known:
    return Known(url)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[*HealthCheck],
)
def test_every_operation_answers_every_request(case: Any, url: str, known: Known) -> None:
    known.put_into(case)
    if case.query and "stream" in case.query:
        case.query.pop("stream")  # a stream lasts until its FineTune ends
    response = case.call(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=SECONDS)
    check_answer(response, case)
    if response.headers["content-type"][0].startswith(STREAM):
        return
    case.validate_response(
        response,
        checks=[content_type_conformance, response_schema_conformance, status_code_conformance],
    )


OPERATIONS = [
    (method.upper(), re.sub(r"\{\w+\}", "ada:ft-acme:one", path))
    for path, found in build_document()["paths"].items()
    for method in found
]


@pytest.mark.parametrize(
    "body",
    [b"{}", b"hello", gzip.compress(b"{", mtime=0)[:-9], b"\x1f\x8b" * 9],
    ids=["plain", "text", "cut", "headers"],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "compress", "x"])
def test_every_operation_answers_a_body_that_cannot_be_decoded(
    url: str, encoding: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # aiohttp does not tell a handler that waits for a body that its last part cannot be decoded.
    monkeypatch.setattr(context, "BODY_SECONDS", 0.5)
    headers = {
        "Authorization": f"Bearer {KEY}",
        "Content-Encoding": encoding,
        "Content-Type": "application/json",
        "Connection": "close",
    }
    for method, path in OPERATIONS:
        answer = requests.request(
            method, f"{url}{path}", headers=headers, data=body, timeout=SECONDS, stream=True
        )
        text = "" if answer.status_code == 200 else answer.text
        shown = {name.lower(): [value] for name, value in answer.headers.items()}
        check_answer(
            SimpleNamespace(status_code=answer.status_code, text=text, headers=shown), None
        )
        answer.close()


def test_the_checks_of_answers_can_fail() -> None:
    headers = {"content-type": ["text/plain"], "x-request-id": ["req-1"]}
    answer = SimpleNamespace(status_code=404, text="404: Not Found", headers=headers)
    with pytest.raises(AssertionError):
        check_answer(answer, None)
