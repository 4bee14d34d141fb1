"""The doctor on the way to the store: certificates, proxies, and names, with real connections."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_api.names import ENV_ADDRESSING_STYLE, ENV_CERTIFICATES
from finetune_cli.cluster.connection import Cluster
from finetune_cli.cluster.errors import UnreachableError
from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.commands.doctor.network_checks import bundle_findings
from finetune_cli.commands.doctor.storage_checks import storage_findings
from finetune_storage.network import VARIABLES
from tests.support.certificates import Authority
from tests.support.connect_proxy import ConnectProxy
from tests.support.proxy import FaultyProxy

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine, and none of a former test."""
    for name in (*PROXIES, *map(str.lower, PROXIES), *VARIABLES, ENV_CERTIFICATES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def problem(endpoint: str, patch: pytest.MonkeyPatch) -> Finding:
    """The only problem that the doctor finds at an endpoint."""
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_MAX_ATTEMPTS", "1")
    found = [item for item in storage_findings("s3://acme/data") if item.level != "ok"]
    assert [(item.level, item.check) for item in found] == [("error", "S3 access")]
    assert "\n" not in found[0].detail
    assert found[0].remedy
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "days", "is_trusted", "words", "remedy"),
    [
        ("127.0.0.1", 0, False, "not signed by a trusted authority", "set FINETUNE_CA_BUNDLE"),
        ("127.0.0.1", -30, True, "certificate has expired", "renew the certificate"),
        ("store.example", 0, True, "is not for the name 127.0.0.1", "use a name of the cert"),
    ],
)
def test_each_problem_of_a_certificate_is_a_sentence_with_a_hint(
    aws: pytest.MonkeyPatch,
    authority: Authority,
    name: str,
    days: int,
    is_trusted: bool,
    words: str,
    remedy: str,
) -> None:
    if is_trusted:
        aws.setenv(ENV_CERTIFICATES, str(authority.file))
    with FaultyProxy("http://127.0.0.1:1", tls=authority.server(name, days=days)) as front:
        found = problem(front.url, aws)
    assert words in found.detail
    assert found.remedy.startswith(remedy)


@pytest.mark.slow
def test_a_proxy_that_refuses_and_a_missing_name_of_a_bucket_are_told(
    aws: pytest.MonkeyPatch,
) -> None:
    aws.setenv(ENV_ADDRESSING_STYLE, "virtual")
    found = problem("https://s3.invalid", aws)
    assert "the name acme.s3.invalid, which virtual-host addressing uses" in found.detail
    assert "AWS_S3_ADDRESSING_STYLE=path" in found.remedy
    with ConnectProxy("--refuse", "403") as proxy:
        aws.setenv("HTTPS_PROXY", proxy.url)
        found = problem("https://s3.invalid", aws)
        told = [item.detail for item in storage_findings("s3://acme/data") if item.level == "ok"]
    assert f"the proxy {proxy.url} refuses the connection" in found.detail
    assert "NO_PROXY" in found.remedy
    assert told == [f"requests to https://s3.invalid use the proxy {proxy.url}"]


@pytest.mark.parametrize(
    ("content", "level", "words"),
    [
        (None, "error", "No such file or directory"),
        ("nothing", "error", "it contains no certificate"),
        ("authority", "ok", "(certificates: 1)"),
    ],
)
def test_the_file_of_certificates_is_checked(
    authority: Authority, tmp_path: Path, content: str | None, level: str, words: str
) -> None:
    path = tmp_path / "bundle.pem"
    if content:
        path.write_bytes(authority.file.read_bytes() if content == "authority" else b"nothing")
    (found,) = bundle_findings({"FINETUNE_CA_BUNDLE": str(path)}, NOW)
    assert (found.level, found.check) == (level, "S3 network")
    assert words in found.detail


def test_a_file_whose_certificates_have_all_expired_is_a_warning(authority: Authority) -> None:
    later = NOW + timedelta(days=30)
    (found,) = bundle_findings({"AWS_CA_BUNDLE": str(authority.file)}, later)
    assert found.level == "warning"
    assert "all certificates in AWS_CA_BUNDLE" in found.detail


@pytest.mark.slow
def test_a_proxy_between_the_command_line_and_the_api_server_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration

    def reason() -> str:
        configuration = type.__call__(Configuration)
        configuration.host = "https://kubernetes.invalid:6443"
        configuration.retries = False
        with pytest.raises(UnreachableError) as caught:
            Cluster(ApiClient(configuration), "team").request("GET", "/version")
        assert "NO_PROXY" in caught.value.hint or "network" in caught.value.hint
        return caught.value.reason

    with ConnectProxy("--refuse", "403") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert reason() == "the proxy refuses the connection"
    assert reason() == "the proxy cannot be reached"
    monkeypatch.setenv("NO_PROXY", ".invalid")
    assert reason() == "its host name cannot be resolved"
