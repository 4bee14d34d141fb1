"""The options and the settings of the process: a wrong one is one sentence, and exit code 2."""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.names import ENV_LOCAL_ROOT
from finetune_gateway.main import ROUTES, main, parse_arguments, prepare
from finetune_gateway.process import certificate as certificates
from finetune_gateway.process.certificate import Certificate
from finetune_gateway.settings import Settings
from finetune_web.settings_file import load_settings
from finetune_web.sockets import listen
from tests.support.certificates import Authority

GOOD: dict[str, Any] = {"namespace": "ml", "files": "s3://finetune-local/gateway"}
KUBECONFIG = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "c", "user": {"token": "own"}}],
}


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(ENV_LOCAL_ROOT, str(tmp_path / "store"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


def arguments(folder: Path, *more: str, user: Any = None, **settings: Any) -> list[str]:
    (folder / "settings.yaml").write_text(yaml.safe_dump(GOOD | settings))
    users = KUBECONFIG["users"] if user is None else [{"name": "c", "user": user}]
    (folder / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG | {"users": users}))
    ports = ("--port", "0", "--operations-port", "0")
    given = ("run", "--settings", str(folder / "settings.yaml"), *ports)
    return [*given, "--kubeconfig", str(folder / "kubeconfig"), *more]


def refusal(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(given) == 2
    text = capsys.readouterr().err
    assert text.startswith("finetune-gateway: ")
    assert text.count("\n") == 1
    return text


LOOPBACK = ("--address", "127.0.0.1")


def test_the_defaults_are_those_of_the_image() -> None:
    options = parse_arguments(["run"])
    assert options.settings == Path("/etc/finetune-gateway/settings.yaml")
    assert (options.address, options.port, options.operations_port) == ("", 8000, 8001)


def test_a_valid_start_has_all_its_parts(tmp_path: Path) -> None:
    parts = prepare(parse_arguments(arguments(tmp_path, *LOOPBACK)))
    assert parts.certificate is None
    assert parts.api_server == "127.0.0.1"
    assert all(opened.getsockname()[0] == "127.0.0.1" for opened in parts.sockets)
    for opened in parts.sockets:
        opened.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"namespace": ""}, "namespace:"),
        ({"namespace": "../a"}, "not the name of a namespace"),
        ({"colour": "red"}, "colour: the field is unknown"),
        ({"files": "/tmp"}, "files:"),
        ({"files": "s3://bucket/a/../b"}, "'.' or '..'"),
        ({"reviewSeconds": 11}, "reviewSeconds:"),
        ({"models": [{"name": "a"}]}, "models.0."),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    assert words in refusal(arguments(tmp_path, *LOOPBACK, **changes), capsys)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"- a", b""])
def test_a_broken_settings_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    given = arguments(tmp_path, *LOOPBACK)
    (tmp_path / "settings.yaml").write_bytes(content)
    assert str(tmp_path / "settings.yaml") in refusal(given, capsys).replace("\n", "")


def test_a_missing_settings_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "/none cannot be read" in refusal(["run", "--settings", "/none"], capsys)
    with pytest.raises(ValueError, match="cannot be read"):
        load_settings(tmp_path, Settings)


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "192.0.2.1"])
def test_plain_http_beyond_this_machine_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    text = refusal(arguments(tmp_path, "--address", address), capsys)
    assert "without TLS" in text
    assert "allowPlainHttp" in text


def test_plain_http_behind_a_proxy_is_a_setting(tmp_path: Path) -> None:
    parts = prepare(parse_arguments(arguments(tmp_path, allowPlainHttp=True)))
    for opened in parts.sockets:
        opened.close()


def test_a_certificate_without_its_key_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "give both" in refusal(arguments(tmp_path, "--tls-key", "/none"), capsys)
    both = ("--tls-key", "/none", "--tls-certificate", "/none")
    assert "no certificate with its key" in refusal(arguments(tmp_path, *both), capsys)


def test_keys_need_a_token_of_the_gateway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, *LOOPBACK, user={}, keys=str(tmp_path))
    assert "the user of the current context has no token" in refusal(given, capsys)
    without = prepare(parse_arguments(arguments(tmp_path, *LOOPBACK, user={})))
    for opened in without.sockets:
        opened.close()


def test_waking_models_needs_a_token_of_the_gateway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, *LOOPBACK, user={}, servesModels=True)
    text = refusal(given, capsys)
    assert "the user of the current context has no token" in text
    assert "to wake models" in text
    assert "remove servesModels from" in text


@pytest.mark.parametrize("serves_models", [False, True])
def test_leases_are_renewed_only_if_the_operator_serves_models(
    tmp_path: Path, serves_models: bool
) -> None:
    given = arguments(tmp_path, *LOOPBACK, servesModels=serves_models)
    parts = prepare(parse_arguments(given))
    assert (parts.leases is not None) is serves_models
    for opened in parts.sockets:
        opened.close()


def test_outside_a_pod_a_kubeconfig_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, *LOOPBACK)
    at = given.index("--kubeconfig")
    assert "--kubeconfig" in refusal([*given[:at], *given[at + 2 :]], capsys)


def test_a_port_that_is_in_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        text = refusal(arguments(tmp_path, *LOOPBACK, "--port", port), capsys)
    assert f"cannot listen on 127.0.0.1, port {port}: " in text


def test_all_addresses_are_ipv4_and_where_there_is_one_ipv6() -> None:
    with listen("", 0) as opened:
        port = opened.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
        if socket.has_dualstack_ipv6():
            assert opened.family == socket.AF_INET6


def test_no_two_routes_have_the_same_method_and_path() -> None:
    pairs = [(route.method, route.path) for route in ROUTES]
    assert len(pairs) == len(set(pairs))
    assert ("GET", "/v1/fine-tunes/{id}/events") in pairs


def served_name(context: ssl.SSLContext, authority: Path) -> bytes:
    """The certificate that a new connection gets, in DER."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            raw, _ = server.accept()
            with context.wrap_socket(raw, server_side=True) as opened:
                opened.recv(1)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        trusted = ssl.create_default_context(cafile=str(authority))
        raw = socket.create_connection(server.getsockname(), 5)
        with trusted.wrap_socket(raw, server_hostname="localhost") as opened:
            found = opened.getpeercert(binary_form=True)
            opened.send(b"x")
        thread.join(5)
    assert found is not None
    return found


def test_a_renewed_certificate_is_used_for_new_connections(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    first, first_key = authority.issue("localhost")
    chain, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    first.rename(chain)
    first_key.rename(key)
    used = Certificate(chain, key)
    before = served_name(used.context, authority.file)
    assert not used.refresh()
    second, second_key = authority.issue("localhost")
    second.rename(chain)
    assert not used.refresh()  # the key is the former one still
    assert "the former certificate stays in use" in caplog.text
    assert served_name(used.context, authority.file) == before
    second_key.rename(key)
    assert used.refresh()
    assert served_name(used.context, authority.file) != before
    key.unlink()
    assert not used.refresh()
    assert served_name(used.context, authority.file) != before


async def test_the_files_of_the_certificate_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CHECK_SECONDS", 0.02)
    authority = Authority(tmp_path)
    chain, key = authority.issue("localhost")
    used = Certificate(chain, key)
    watching = asyncio.create_task(used.watch())
    before = await asyncio.to_thread(served_name, used.context, authority.file)
    authority.issue("localhost")
    for _ in range(100):
        await asyncio.sleep(0.05)
        if await asyncio.to_thread(served_name, used.context, authority.file) != before:
            break
    assert await asyncio.to_thread(served_name, used.context, authority.file) != before
    watching.cancel()
