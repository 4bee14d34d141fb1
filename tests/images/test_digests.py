"""Asking a registry for a digest: tokens, TLS, and every answer that is not a verified manifest."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from images.digests import Resolved, resolve_digest
from images.references import BaseImageError, Reference
from images.registry_client import MOST_BYTES
from tests.images.registry_server import (
    EMPTY,
    INDEX,
    INDEX_DIGEST,
    INDEX_TYPE,
    MANIFEST,
    MANIFEST_DIGEST,
    MANIFEST_TYPE,
    RegistryServer,
    Reply,
    index,
    with_token,
)
from tests.support.certificates import Authority
from tests.support.connect_proxy import ConnectProxy

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
TOKEN = "eyJhbGciOi.J9~+/="


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@pytest.fixture
def other() -> Iterator[RegistryServer]:
    """A second server: of tokens, or one that must get no request."""
    with RegistryServer(lambda _: Reply(200, json.dumps({"token": TOKEN}).encode())) as server:
        yield server


def resolve(registry: RegistryServer) -> Resolved:
    return resolve_digest(Reference(registry.host, "team/base", "1"))


def reply_of(value: Any, kind: str) -> Reply:
    """A reply with the right digest of its body."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return index(f"sha256:{hashlib.sha256(body).hexdigest()}", body, kind)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (index(), Resolved(INDEX_DIGEST, True)),
        (index(kind=f"{INDEX_TYPE}; charset=utf-8"), Resolved(INDEX_DIGEST, True)),
        (index(MANIFEST_DIGEST, MANIFEST, MANIFEST_TYPE), Resolved(MANIFEST_DIGEST, False)),
        (index(MANIFEST_DIGEST, MANIFEST, DOCKER_MANIFEST), Resolved(MANIFEST_DIGEST, False)),
    ],
    ids=["index", "charset", "manifest", "docker manifest"],
)
def test_the_digest_is_that_of_the_index_or_the_manifest(
    registry: RegistryServer, reply: Reply, expected: Resolved
) -> None:
    registry.reply = lambda _: reply
    assert resolve(registry) == expected
    (asked,) = registry.asked
    assert asked.path == "/v2/team/base/manifests/1"
    assert asked.token is None
    accepted = asked.headers["Accept"].split(", ")
    assert {*accepted} == {INDEX_TYPE, DOCKER_LIST, MANIFEST_TYPE, DOCKER_MANIFEST}
    assert {*accepted[:2]} == {INDEX_TYPE, DOCKER_LIST}


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_token_is_requested_for_reading_this_repository_alone(
    registry: RegistryServer, other: RegistryServer, field: str
) -> None:
    other.reply = lambda _: Reply(200, json.dumps({field: TOKEN}).encode())
    registry.reply = with_token(f"http://{other.host}/token?account=a%26b", TOKEN)
    assert resolve(registry).digest == INDEX_DIGEST
    assert [asked.token for asked in registry.asked] == [None, f"Bearer {TOKEN}"]
    (asked,) = other.asked
    assert asked.token is None
    parts = urlsplit(asked.path)
    assert parts.path == "/token"
    assert parse_qs(parts.query) == {
        "account": ["a&b"],
        "service": ["registry.test"],
        "scope": ["repository:team/base:pull"],
    }


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(200, INDEX, {"Content-Type": INDEX_TYPE}), "has no header Docker-Content-Digest"),
        (index(EMPTY), f"names the digest {EMPTY}, but its answer has {INDEX_DIGEST}"),
        (index(INDEX_DIGEST, INDEX[:-1]), f"names the digest {INDEX_DIGEST}, but"),
        (index(INDEX_DIGEST.upper()), "names the digest"),
        (Reply(404), "the registry has no such image"),
        (Reply(403), "requires a login"),
        (Reply(429), "limits requests"),
        (Reply(500), "unexpected HTTP status 500"),
        (Reply(204), "unexpected HTTP status 204"),
        (Reply(401), "requires a login"),
        (Reply(401, b"", {"WWW-Authenticate": 'Basic realm="a"'}), "requires a login"),
        (Reply(401, b"", {"WWW-Authenticate": "Bearer realm=a"}), "has no valid HTTPS address"),
    ],
    ids=lambda value: f"{value.status}" if isinstance(value, Reply) else "",
)
def test_an_answer_without_a_verified_digest_is_refused(
    registry: RegistryServer, reply: Reply, message: str
) -> None:
    registry.reply = lambda _: reply
    with pytest.raises(BaseImageError, match=message):
        resolve(registry)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"<html></html>", "text/html"),
        (b"\xff\xfe", INDEX_TYPE),
        (b"[" * 100_000, INDEX_TYPE),
        ([], INDEX_TYPE),
        (None, INDEX_TYPE),
        ({}, INDEX_TYPE),
        ({"schemaVersion": 2, "manifests": []}, INDEX_TYPE),
        ({"schemaVersion": 2, "manifests": {"digest": EMPTY}}, INDEX_TYPE),
        ({"schemaVersion": 2, "manifests": [EMPTY]}, INDEX_TYPE),
        ({"schemaVersion": 2, "manifests": [{"digest": 1}]}, INDEX_TYPE),
        ({"schemaVersion": 1, "manifests": [{"digest": EMPTY}]}, INDEX_TYPE),
        ({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [{"digest": ""}]}, INDEX_TYPE),
        ({"schemaVersion": 2, "manifests": [{"digest": EMPTY}]}, MANIFEST_TYPE),
        ({"schemaVersion": 2, "manifests": [{"digest": EMPTY}]}, "application/json"),
        ({"schemaVersion": 2, "config": {"digest": EMPTY}}, MANIFEST_TYPE),
        ({"schemaVersion": 2, "layers": [{"digest": EMPTY}]}, MANIFEST_TYPE),
        (MANIFEST, INDEX_TYPE),
        (MANIFEST, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
    ids=[
        *("html", "bytes", "deep", "list", "null", "empty", "no images", "no list", "texts"),
        *("number", "version", "type", "index as manifest", "json", "no layers", "no config"),
        *("manifest as index", "version 1"),
    ],
)
def test_only_manifests_and_indexes_have_digests(
    registry: RegistryServer, value: Any, kind: str
) -> None:
    registry.reply = lambda _: reply_of(value, kind)
    with pytest.raises(BaseImageError, match="neither a manifest nor an index"):
        resolve(registry)


def test_an_answer_has_at_most_4_mib(registry: RegistryServer) -> None:
    largest = INDEX + b" " * (4 * 2**20 - len(INDEX))
    registry.reply = lambda _: reply_of(largest, INDEX_TYPE)
    assert resolve(registry).digest == f"sha256:{hashlib.sha256(largest).hexdigest()}"
    registry.reply = lambda _: reply_of(largest + b" ", INDEX_TYPE)
    with pytest.raises(BaseImageError, match="more than 4 MiB"):
        resolve(registry)


def test_a_token_never_follows_a_redirect(registry: RegistryServer, other: RegistryServer) -> None:
    away = Reply(307, b"", {"Location": f"http://{other.host}/v2/team/base/manifests/1"})
    with RegistryServer(lambda _: Reply(200, json.dumps({"token": TOKEN}).encode())) as tokens:
        registry.reply = with_token(f"http://{tokens.host}/token", TOKEN, away)
        with pytest.raises(BaseImageError, match=f"redirects to http://{other.host}/v2/.* no redi"):
            resolve(registry)
    assert registry.asked[-1].token == f"Bearer {TOKEN}"
    assert other.asked == []


def test_a_request_for_a_token_is_not_redirected(
    registry: RegistryServer, other: RegistryServer
) -> None:
    away = Reply(302, b"", {"Location": f"http://{other.host}/token"})
    with RegistryServer(lambda _: away) as tokens:
        registry.reply = with_token(f"http://{tokens.host}/token", TOKEN)
        with pytest.raises(BaseImageError, match="has answered with HTTP status 302"):
            resolve(registry)
    assert other.asked == []


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(200, b"{"), "has answered without a token"),
        (Reply(200, b"[]"), "has answered without a token"),
        (Reply(200, b"{}"), "has answered without a token"),
        (Reply(200, b"[" * 100_000), "has answered without a token"),
        (Reply(200, b'{"token": 1}'), "has answered without a token"),
        (Reply(200, b'{"token": "a\\r\\nHost: b"}'), "has answered without a token"),
        (Reply(200, '{"token": "é"}'.encode()), "has answered without a token"),
        (Reply(200, b" " * (MOST_BYTES + 1)), "more than 4 MiB"),
        (Reply(401), "requires a login"),
        (Reply(429), "HTTP status 429"),
        (Reply(200, b'{"token": "wrong"}'), "requires a login"),
    ],
    ids=[
        *("cut", "list", "empty", "deep", "number", "lines", "letters", "large", "401", "429"),
        "wrong",
    ],
)
def test_an_answer_without_a_usable_token_is_refused(
    registry: RegistryServer, other: RegistryServer, reply: Reply, message: str
) -> None:
    other.reply = lambda _: reply
    registry.reply = with_token(f"http://{other.host}/token", TOKEN)
    with pytest.raises(BaseImageError, match=message):
        resolve(registry)
    assert len(registry.asked) <= 2


@pytest.mark.parametrize(
    "realm",
    [
        "http://registry.example/token",
        "file:///etc/passwd",
        "ftp://127.0.0.1/token",
        "https://user:word@127.0.0.1/token",
        "https:///token",
        "https://[::1/token",
        "https://ünicode.example/token",
        "",
    ],
)
def test_a_token_server_needs_https(registry: RegistryServer, realm: str) -> None:
    registry.reply = with_token(realm.encode().decode("latin-1"), TOKEN)
    with pytest.raises(BaseImageError, match="has no valid HTTPS address"):
        resolve(registry)
    assert len(registry.asked) == 1


def test_no_server_is_reported_with_its_name() -> None:
    with RegistryServer() as server:
        host = server.host
    with pytest.raises(BaseImageError, match=f"{host} does not answer: .*refused"):
        resolve_digest(Reference(host, "team/base", "1"))


def test_control_characters_of_a_server_reach_no_terminal(registry: RegistryServer) -> None:
    registry.reply = lambda _: index("\x1b[2Jsha256:1")
    with pytest.raises(BaseImageError) as caught:
        resolve(registry)
    assert "\x1b" not in str(caught.value)
    assert "sha256:1," in str(caught.value)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """The only way to names that end with `.test`."""
    with ConnectProxy("--resolve", "127.0.0.1") as started:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", started.url)
        yield started


def test_a_registry_and_its_token_server_are_reached_with_tls_through_a_proxy(
    authority: Authority, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    tls = authority.server("registry.test", "auth.test")
    body = json.dumps({"token": TOKEN}).encode()
    with RegistryServer(lambda _: Reply(200, body), tls) as tokens, RegistryServer(tls=tls) as made:
        made.reply = with_token(f"https://auth.test:{tokens.port}/token", TOKEN)
        reference = Reference(f"registry.test:{made.port}", "team/base", "1")
        assert resolve_digest(reference) == Resolved(INDEX_DIGEST, True)
        assert [asked.token for asked in made.asked] == [None, f"Bearer {TOKEN}"]
        registry, auth = f"registry.test:{made.port}", f"auth.test:{tokens.port}"
    assert proxy.stop() == [f"CONNECT {host}" for host in (registry, auth, registry)]


def test_a_registry_with_tls_cannot_send_its_token_to_plain_http(
    authority: Authority,
    proxy: ConnectProxy,
    other: RegistryServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with RegistryServer(tls=authority.server("registry.test")) as made:
        made.reply = with_token(f"http://{other.host}/token", TOKEN)
        with pytest.raises(BaseImageError, match="has no valid HTTPS address"):
            resolve_digest(Reference(f"registry.test:{made.port}", "team/base", "1"))
    assert other.asked == []


def test_an_unknown_certificate_is_refused(authority: Authority, proxy: ConnectProxy) -> None:
    with RegistryServer(tls=authority.server("registry.test")) as made:
        with pytest.raises(BaseImageError, match=r"does not answer: .*CERTIFICATE_VERIFY_FAILED"):
            resolve_digest(Reference(f"registry.test:{made.port}", "team/base", "1"))
        assert made.asked == []
