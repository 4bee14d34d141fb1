"""Stores with a private authority, behind a proxy, and with virtual-host addressing."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.errors import Audience
from finetune_api.names import (
    ENV_ADDRESSING_STYLE,
    ENV_CERTIFICATES,
    ENV_DEFAULT_ADDRESSING_STYLE,
    Reason,
)
from finetune_api.uris import S3Uri
from finetune_storage.connect import open_storage
from finetune_storage.connections import proxy_of
from finetune_storage.errors import StorageError
from finetune_storage.messages import StorageProblem
from finetune_storage.network import VARIABLES, prepare_network
from finetune_storage.s3 import Storage
from tests.data.hub import Hub
from tests.data.stub_server import StubServer
from tests.support.certificates import Authority
from tests.support.connect_proxy import ConnectProxy
from tests.support.proxy import FaultyProxy
from tests.support.stores import VirtualHosts

DOMAIN = "s3.test"
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine, and none of a former test."""
    for name in (*PROXIES, *map(str.lower, PROXIES), *VARIABLES, ENV_CERTIFICATES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in (ENV_ADDRESSING_STYLE, ENV_DEFAULT_ADDRESSING_STYLE, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def https(authority: Authority, s3_endpoint: str) -> Iterator[FaultyProxy]:
    """The store, with a certificate of the private authority."""
    with FaultyProxy(s3_endpoint, tls=authority.server("127.0.0.1", DOMAIN)) as front:
        yield front


@pytest.fixture(scope="session")
def virtual(authority: Authority, s3_endpoint: str) -> Iterator[FaultyProxy]:
    """The same, which knows no buckets in paths."""
    with FaultyProxy(s3_endpoint, tls=authority.server(f"*.{DOMAIN}", DOMAIN)) as front:
        front.store = VirtualHosts(DOMAIN)
        yield front


def problem_of(uri: S3Uri) -> StorageError:
    with pytest.raises(StorageError) as caught:
        open_storage().read_bytes(uri)
    return caught.value


def style_in_use() -> str:
    return str(open_storage()._client.meta.config.s3["addressing_style"])


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "style"),
    [
        ({}, "path"),
        ({"AWS_ENDPOINT_URL": ""}, "auto"),
        ({ENV_ADDRESSING_STYLE: "virtual"}, "virtual"),
        ({ENV_ADDRESSING_STYLE: " auto\n"}, "auto"),
        ({ENV_DEFAULT_ADDRESSING_STYLE: "virtual"}, "virtual"),
        ({ENV_DEFAULT_ADDRESSING_STYLE: "virtual", ENV_ADDRESSING_STYLE: "path"}, "path"),
        ({ENV_DEFAULT_ADDRESSING_STYLE: "virtual", ENV_ADDRESSING_STYLE: ""}, "virtual"),
    ],
)
def test_the_secret_names_the_addressing_style_or_else_the_chart(
    aws: pytest.MonkeyPatch, environment: dict[str, str], style: str
) -> None:
    for name, value in environment.items():
        if name == "AWS_ENDPOINT_URL":
            aws.delenv(name)
        else:
            aws.setenv(name, value)
    assert style_in_use() == style


def test_the_addressing_style_of_the_aws_configuration_counts(
    aws: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    aws.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert style_in_use() == "virtual"
    aws.setenv(ENV_ADDRESSING_STYLE, "path")
    assert style_in_use() == "path"


def test_an_unknown_addressing_style_is_refused_with_its_variable(aws: pytest.MonkeyPatch) -> None:
    aws.setenv(ENV_ADDRESSING_STYLE, "host")
    error = problem_of(S3Uri("acme", "x"))
    assert error.failure.code == Reason.INVALID_SPEC
    assert "AWS_S3_ADDRESSING_STYLE is 'host'" in error.failure.message


def certificates(path: str | Path) -> set[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=str(path))
    return set(context.get_ca_certs(binary_form=True))


def test_the_bundle_is_added_to_the_public_authorities_for_every_client(
    authority: Authority,
) -> None:
    from botocore.httpsession import where

    environment = {ENV_CERTIFICATES: str(authority.file)}
    prepare_network(environment)
    files = {environment[name] for name in VARIABLES}
    assert len(files) == 1
    found = certificates(files.pop())
    assert certificates(authority.file) < found
    assert certificates(where()) < found
    before = dict(environment)
    prepare_network(environment)
    assert environment == before


def test_a_process_without_a_bundle_keeps_its_own_variables(authority: Authority) -> None:
    environment = {"AWS_CA_BUNDLE": str(authority.file)}
    prepare_network(environment)
    assert environment == {"AWS_CA_BUNDLE": str(authority.file)}


def test_a_bundle_keeps_what_other_variables_name(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = Authority(tmp_path / "b", "Another authority")
    environment = {ENV_CERTIFICATES: str(authority.file), "SSL_CERT_FILE": str(other.file)}
    prepare_network(environment)
    assert certificates(other.file) | certificates(authority.file) < certificates(
        environment["AWS_CA_BUNDLE"]
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file or directory"),
        (b"", "it contains no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        prepare_network({ENV_CERTIFICATES: str(path)})
    failure = caught.value.failure
    assert failure.code == Reason.INVALID_SPEC
    assert words in failure.message
    assert str(path) in failure.message


@pytest.mark.parametrize(
    ("endpoint", "exceptions", "is_direct"),
    [
        ("http://10.96.3.4:9000", "10.96.0.0/12", True),
        ("http://10.112.3.4:9000", "10.96.0.0/12", False),
        ("http://[fd00::5]:9000", "fd00::/8", True),
        ("http://[fd00::5]:9000", "fd00::5", True),
        ("http://[2001:db8::5]:9000", "fd00::/8", False),
        ("http://minio.storage.svc:9000", ".svc,.cluster.local", True),
        ("http://minio.storage.svc.cluster.local:9000", ".svc,.cluster.local", True),
        ("https://acme.s3.corp.example", "*.corp.example", True),
        ("https://s3.amazonaws.com", "*.corp.example,10.0.0.0/8", False),
        ("https://s3.amazonaws.com", "not a network/77, ,s3.amazonaws.com", True),
        ("https://s3.amazonaws.com", "", False),
    ],
)
def test_exceptions_of_the_proxy_may_be_networks_and_domains(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, exceptions: str, is_direct: bool
) -> None:
    from botocore.utils import get_environ_proxies

    for name, value in {
        "HTTPS_PROXY": "http://user:secret@proxy.test:3128",
        "HTTP_PROXY": "http://proxy.test:3128",
        "NO_PROXY": exceptions,
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.delenv("no_proxy")
    prepare_network()
    assert (get_environ_proxies(endpoint) == {}) is is_direct
    assert proxy_of(endpoint) == (None if is_direct else "http://proxy.test:3128")


# --- real stores ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_with_a_private_authority_is_used_with_the_bundle(
    aws: pytest.MonkeyPatch, https: FaultyProxy, authority: Authority, bucket: str
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", https.url)
    uri = S3Uri(bucket, "x")
    error = problem_of(uri)
    assert error.problem is StorageProblem.CERTIFICATE_UNKNOWN
    assert "pods.certificates" in error.failure.message
    assert "FINETUNE_CA_BUNDLE" in (error.failure_for(Audience.SHELL).hint or "")
    aws.setenv(ENV_CERTIFICATES, str(authority.file))
    storage = open_storage()
    storage.write_bytes(uri, b"mine")
    assert storage.read_bytes(uri) == b"mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "days", "problem", "word"),
    [
        (["127.0.0.1"], -20, StorageProblem.CERTIFICATE_DATE, "expired"),
        (["127.0.0.1"], 20, StorageProblem.CERTIFICATE_DATE, "not yet valid"),
        (["other.test"], 0, StorageProblem.CERTIFICATE_NAME, "127.0.0.1"),
        ([], 0, StorageProblem.PLAIN_HTTP, "does not speak TLS"),
    ],
)
def test_each_fault_of_a_certificate_has_its_sentence(
    aws: pytest.MonkeyPatch,
    authority: Authority,
    names: list[str],
    days: int,
    problem: StorageProblem,
    word: str,
) -> None:
    tls = authority.server(*names, days=days) if names else None
    with FaultyProxy("http://127.0.0.1:1", tls=tls) as front:
        aws.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{front.port}")
        aws.setenv(ENV_CERTIFICATES, str(authority.file))
        aws.setenv("AWS_MAX_ATTEMPTS", "1")
        error = problem_of(S3Uri("acme", "x"))
    assert error.problem is problem
    assert word in error.failure.message
    assert error.failure.code == Reason.S3_UNAVAILABLE
    assert error.failure_for(Audience.SHELL).hint


@pytest.mark.slow
def test_a_wrong_bundle_of_the_shell_is_not_mistaken_for_a_wrong_certificate(
    aws: pytest.MonkeyPatch, https: FaultyProxy, tmp_path: Path
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", https.url)
    for content in (None, b"nothing"):
        if content is not None:
            (tmp_path / "bundle.pem").write_bytes(content)
        aws.setenv("AWS_CA_BUNDLE", str(tmp_path / "bundle.pem"))
        error = problem_of(S3Uri("acme", "x"))
        assert error.problem is StorageProblem.CERTIFICATES_UNUSABLE
        assert f"AWS_CA_BUNDLE cannot be used ({tmp_path}" in error.failure.message


@pytest.mark.slow
def test_a_store_behind_a_proxy_with_a_private_authority_and_virtual_hosts(
    aws: pytest.MonkeyPatch, virtual: FaultyProxy, authority: Authority, bucket: str, tmp_path: Path
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", f"https://{DOMAIN}:{virtual.port}")
    aws.setenv(ENV_CERTIFICATES, str(authority.file))
    with ConnectProxy("--resolve", "127.0.0.1") as proxy:
        aws.setenv("HTTPS_PROXY", proxy.url)
        error = problem_of(S3Uri(bucket, "x"))
        assert error.problem is StorageProblem.ADDRESSING_REFUSED
        assert "AWS_S3_ADDRESSING_STYLE to virtual" in error.failure.message
        aws.setenv(ENV_ADDRESSING_STYLE, "virtual")
        _use(open_storage(), bucket, tmp_path)
        targets = set(proxy.stop())
    assert targets == {
        f"CONNECT {DOMAIN}:{virtual.port}",
        f"CONNECT {bucket}.{DOMAIN}:{virtual.port}",
    }


def _use(storage: Storage, bucket: str, folder: Path) -> None:
    """Every kind of request: an upload in parts, ranges, a listing, conditions, a deletion."""
    data = bytes(range(256)) * 70_000
    (folder / "up").write_bytes(data)
    storage.upload_file(folder / "up", S3Uri(bucket, "big/file"))
    storage.download_prefix(S3Uri(bucket, "big"), folder / "down")
    assert (folder / "down" / "file").read_bytes() == data
    entry = storage.create_bytes(S3Uri(bucket, "small"), b"one")
    storage.replace_bytes(S3Uri(bucket, "small"), b"two", entry)
    assert storage.read_bytes(S3Uri(bucket, "small")) == b"two"
    storage.delete(S3Uri(bucket, "small"))
    assert not storage.exists(S3Uri(bucket, "small"))
    assert storage.abort_uploads(S3Uri(bucket, "big")) == 0


@pytest.mark.slow
def test_a_plain_store_behind_a_proxy_is_used(
    aws: pytest.MonkeyPatch, s3_endpoint: str, bucket: str, tmp_path: Path
) -> None:
    port = s3_endpoint.rpartition(":")[2]
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with ConnectProxy() as proxy:
        aws.setenv("HTTP_PROXY", proxy.url)
        _use(open_storage(), bucket, tmp_path)
        targets = proxy.stop()
    assert targets
    assert all(f" http://127.0.0.1:{port}/{bucket}" in target for target in targets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "status", "words"),
    [
        ("https", 403, "403 Refused"),
        ("https", 502, "502 Refused"),
        ("http", 403, "HTTP 403"),
        ("http", 407, "HTTP 407"),
    ],
)
def test_a_refusal_of_the_proxy_is_not_mistaken_for_one_of_the_store(
    aws: pytest.MonkeyPatch, scheme: str, status: int, words: str
) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "1")
    aws.setenv("AWS_ENDPOINT_URL", f"{scheme}://store.test:9000")
    with ConnectProxy("--refuse", str(status)) as proxy:
        address = proxy.url.replace("http://", "http://someone:very-secret@")
        aws.setenv(f"{scheme.upper()}_PROXY", address)
        error = problem_of(S3Uri("acme", "x"))
        with pytest.raises(StorageError) as head:
            open_storage().head(S3Uri("acme", "x"))
    for found in (error, head.value):
        assert found.problem is StorageProblem.PROXY_REFUSES
        assert f"the proxy {proxy.url} refuses the connection" in found.failure.message
        assert words in found.failure.message
        assert "very-secret" not in f"{found.failure}{found.failure_for(Audience.SHELL)}"
        assert "NO_PROXY" in (found.failure_for(Audience.SHELL).hint or "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "proxy"), [("https", "http://127.0.0.1:1"), ("http", "http://proxy.invalid:3128")]
)
def test_a_proxy_that_is_not_there_is_named(
    aws: pytest.MonkeyPatch, scheme: str, proxy: str
) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "1")
    aws.setenv("AWS_ENDPOINT_URL", f"{scheme}://store.test:9000")
    aws.setenv(f"{scheme.upper()}_PROXY", proxy)
    error = problem_of(S3Uri("acme", "x"))
    assert error.problem is StorageProblem.PROXY_UNREACHABLE
    assert f"the proxy {proxy} for {scheme}://store.test:9000" in error.failure.message


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_missing_name_of_a_bucket_is_told_from_a_missing_name_of_the_endpoint(
    aws: pytest.MonkeyPatch, scheme: str
) -> None:
    aws.setenv("AWS_MAX_ATTEMPTS", "1")
    aws.setenv("AWS_ENDPOINT_URL", f"{scheme}://s3.invalid:9000")
    error = problem_of(S3Uri("acme", "x"))
    assert error.problem is StorageProblem.NAME_UNKNOWN
    assert "the name s3.invalid " in error.failure.message
    aws.setenv(ENV_ADDRESSING_STYLE, "virtual")
    error = problem_of(S3Uri("acme", "x"))
    assert error.problem is StorageProblem.BUCKET_NAME_UNKNOWN
    assert "the name acme.s3.invalid, " in error.failure.message
    assert "*.HOST" in (error.failure_for(Audience.SHELL).hint or "")


# --- the hub --------------------------------------------------------------------------------------

FETCH = """\
import json, os, sys
from pathlib import Path

from huggingface_hub.utils import close_session

from finetune_api.errors import Audience, FailureError
from finetune_api.uris import HubUri
from finetune_data.models.hub import HubModel
from finetune_storage.connect import open_storage

for number, changes in enumerate(json.loads(sys.argv[2])):
    os.environ.update(changes)
    open_storage()
    close_session()
    try:
        found = HubModel(HubUri("acme/tiny", "v1"), ["config.json"], "tiny")
        found.fetch(["config.json"], Path(sys.argv[1]) / str(number))
    except FailureError as error:
        failure = error.failure_for(Audience.SHELL)
        print(failure.message, "|", failure.hint)
    else:
        print("fetched")
"""


def fetch(folder: Path, *changes: dict[str, str]) -> list[str]:
    """What a process says that fetches a file again after each change of its environment."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(folder), json.dumps(changes)],
        env=os.environ | {"HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_hub_with_a_private_authority_behind_a_proxy_is_used(
    aws: pytest.MonkeyPatch, authority: Authority, tmp_path: Path
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN"):
        aws.delenv(name, raising=False)
    with (
        StubServer() as stub,
        FaultyProxy(stub.url, tls=authority.server("hub.test", "127.0.0.1")) as front,
        ConnectProxy("--resolve", "127.0.0.1") as proxy,
        ConnectProxy("--refuse", "403") as refusing,
    ):
        stub.answer = Hub({"config.json": b"{}"})
        aws.setenv("HF_ENDPOINT", f"https://hub.test:{front.port}")
        said = fetch(
            tmp_path,
            {"HTTPS_PROXY": proxy.url},
            {ENV_CERTIFICATES: str(authority.file)},
            {"HTTPS_PROXY": refusing.url},
            {"HTTPS_PROXY": "http://127.0.0.1:1"},
            {"NO_PROXY": "*.test"},
        )
        assert set(proxy.stop()) == {f"CONNECT hub.test:{front.port}"}
    assert said[1] == "fetched"
    assert (tmp_path / "1" / "config.json").read_bytes() == b"{}"
    for line, words in (
        (said[0], "not signed by a trusted authority"),
        (said[2], f"the proxy {refusing.url} refuses the connection (403 Refused)"),
        (said[3], "the proxy http://127.0.0.1:1 cannot be reached"),
        (said[4], "its name cannot be resolved"),
    ):
        assert words in line
