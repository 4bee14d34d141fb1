"""The header Authorization: who the caller is, and what others read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.api_keys import KeyRecord, hash_key, new_key
from finetune_gateway.kube.authentication import TOKEN_BYTES, Authentication
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.keys import KeyRing
from finetune_web.problems import Kind, Problem

NOW = datetime(2026, 11, 30, 4, 40, tzinfo=UTC)
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl-_"


def authentication(folder: Path, *records: KeyRecord) -> Authentication:
    for record in records:
        (folder / record.entry_name).write_text(record.to_json())
    return Authentication("ml", KeyRing(folder), now=lambda: NOW)


def refusal(authenticate: Authentication, header: str) -> Problem:
    with pytest.raises(Problem) as caught:
        authenticate(header)
    assert caught.value.status == 401
    assert caught.value.kind == Kind.AUTHENTICATION
    return caught.value


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token_is_forwarded_as_it_is(tmp_path: Path, scheme: str) -> None:
    caller = authentication(tmp_path)(f"{scheme} {JWT}")
    assert caller.headers == {"Authorization": f"Bearer {JWT}"}
    assert caller.account == ""
    assert JWT not in repr(caller)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_key_becomes_an_impersonation_of_its_account(tmp_path: Path, scheme: str) -> None:
    key = new_key()
    record = KeyRecord(sha256=hash_key(key), account="bert", created=NOW)
    caller = authentication(tmp_path, record)(f"{scheme}  {key} ")
    assert caller.headers == {"Impersonate-User": "system:serviceaccount:ml:bert"}
    assert caller.account == "bert"


def test_the_keys_of_one_account_have_one_fingerprint_and_tokens_have_their_own(
    tmp_path: Path,
) -> None:
    keys = [new_key(), new_key()]
    records = [KeyRecord(sha256=hash_key(key), account="bert", created=NOW) for key in keys]
    authenticate = authentication(tmp_path, *records)
    first, second = (authenticate(f"Bearer {key}") for key in keys)
    assert first.fingerprint == second.fingerprint
    tokens = {authenticate(f"Bearer {JWT}{end}").fingerprint for end in ("", "a")}
    assert len(tokens | {first.fingerprint}) == 3


def test_an_expired_key_is_refused_with_its_account_and_time(tmp_path: Path) -> None:
    key = new_key()
    record = KeyRecord(sha256=hash_key(key), account="bert", created=NOW, expires=NOW)
    problem = refusal(authentication(tmp_path, record), f"Bearer {key}")
    assert problem.code == "invalid_api_key"
    assert "bert expired at 2026-11-30 04:40 UTC" in problem.message
    later = record.replace(expires=NOW + timedelta(seconds=1))
    assert authentication(tmp_path, later)(f"Bearer {key}").account == "bert"


@pytest.mark.parametrize("header", ["", " ", "Bearer", "Bearer ", "bearer   "])
def test_a_request_without_a_key_is_told_how_to_send_one(tmp_path: Path, header: str) -> None:
    problem = refusal(authentication(tmp_path), header)
    assert problem.code == "missing_api_key"
    assert problem.message.startswith("You did not provide an API key.")
    assert "finetune keys create" in problem.message


@pytest.mark.parametrize(
    "header",
    [
        "Basic YmVydDpzZWNyZXQ=",
        "sk-ft-" + "SECRET" * 7 + "A",  # a key without the scheme
        "Bearer SECRET SECRET",
        "Bearer SECRET\x00",
        "Bearer SECRET\r\nImpersonate-User: admin",
        "Bearer SECRET\udcff",
        "Bearer SECRETé",
        "Bearer " + "SECRET" * TOKEN_BYTES,
        "Bearer =SECRET",
        "Bearer sk-proj-SECRET",
        "Bearer sk-ft-SECRET",
        "Bearer sk-ft-" + "SECRET" * 7 + "A",
    ],
)
def test_a_wrong_credential_is_refused_and_not_repeated(tmp_path: Path, header: str) -> None:
    problem = refusal(authentication(tmp_path), header)
    assert problem.code == "invalid_api_key"
    assert "SECRET" not in problem.message
    assert len(problem.message) < 400


def test_a_key_of_openai_is_refused_with_the_remedy(tmp_path: Path) -> None:
    message = refusal(authentication(tmp_path), "Bearer sk-proj-abcdefgh").message
    assert message.startswith("Incorrect API key provided: sk-... OpenAI's keys are not valid here")
    assert "proj" not in message


def test_a_gateway_without_keys_refuses_them_and_accepts_tokens() -> None:
    authenticate = Authentication("ml", None)
    assert refusal(authenticate, f"Bearer {new_key()}").code == "invalid_api_key"
    assert authenticate(f"Bearer {JWT}").headers["Authorization"] == f"Bearer {JWT}"


@given(st.text())
def test_every_header_is_a_caller_with_one_credential_or_a_problem(header: str) -> None:
    for text in (header, f"Bearer {header}"):
        try:
            caller = Authentication("ml", None)(text)
        except Problem as problem:
            assert problem.status == 401
        else:
            assert isinstance(caller, Caller)
            assert set(caller.headers) == {"Authorization"}
            value = caller.headers["Authorization"]
            assert value.isascii()
            assert value.isprintable()
