"""Error messages for rejected requests, and for a server that does not respond."""

from __future__ import annotations

import json
from typing import Any

import pytest
import urllib3

from finetune_cli.cluster.errors import ApiError, UnreachableError


def answer(message: str, reason: str = "", **details: Any) -> bytes:
    found = {"kind": "Status", "message": message, "reason": reason, "details": details}
    return json.dumps(found).encode()


CAUSES = [
    {"field": "spec.suffix", "message": "Too long: may not be more than 64 bytes"},
    {"field": "<nil>", "message": "Invalid value: some rules were not checked"},
]


@pytest.mark.parametrize(
    ("status", "data", "message", "hint"),
    [
        (401, answer("Unauthorized"), "does not accept this login", "log in to your cluster again"),
        (403, answer('User "system:anonymous" cannot'), "does not accept this login", "log in"),
        (403, answer('User "me" cannot create'), 'User "me" cannot create', "Role finetune-user"),
        (404, b"404 page not found", "CRDs are not installed", "helm install"),
        (404, answer("the server could not find the requested resource"), "CRDs are not", "helm"),
        (
            404,
            answer("not found", "NotFound", kind="finetunes", name="tone"),
            "there is no fine-tune 'tone' in namespace 'team'",
            "list -A",
        ),
        (
            409,
            answer("exists", "AlreadyExists", name="tone"),
            "'tone' already exists in namespace 'team'",
            "another name",
        ),
        (
            422,
            answer("is invalid", "Invalid", causes=CAUSES),
            "spec.suffix: Too long: may not be more than 64 bytes; some rules were not checked",
            "correct the field",
        ),
        (400, answer('strict decoding error: unknown field "x"'), 'unknown field "x"', ""),
        (500, b"<html>", "HTTP 500", ""),
        (502, b"[]", "HTTP 502", ""),
    ],
)
def test_a_refusal_is_a_sentence(status: int, data: bytes, message: str, hint: str) -> None:
    error = ApiError.of(status, data, "https://host", "team")
    assert message in error.message
    assert hint in error.hint
    assert error.is_transient == (status >= 500)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (ConnectionResetError(104, "Connection reset by peer"), "the connection broke"),
        (OSError(101, "Network is unreachable"), "the network is unreachable"),
        (urllib3.exceptions.ProtocolError("IncompleteRead(3)"), "the connection broke"),
        (urllib3.exceptions.ReadTimeoutError(None, "/", "Read timed out."), "no response in time"),  # type: ignore[arg-type]
        (urllib3.exceptions.ConnectTimeoutError("slow"), "no response in time"),
        (
            urllib3.exceptions.SSLError("certificate verify failed: CERTIFICATE_VERIFY_FAILED"),
            "its certificate is not trusted",
        ),
        ("SSLError\nwrong version number", "the TLS connection failed"),
        (OSError("something\x1b[31m new"), "something\\x1b[31m new"),
    ],
)
def test_a_silence_has_a_reason(error: BaseException | str, why: str) -> None:
    found = UnreachableError.of("https://host:6443", error)
    assert found.reason == why
    assert found.message == f"cannot reach the API server at https://host:6443: {why}"
    assert found.hint
