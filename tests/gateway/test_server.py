"""Where the API server is: the mount of a pod, and kubeconfigs."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_gateway.kube.server import (
    Server,
    is_loopback,
    server_of_kubeconfig,
    server_of_pod,
)
from tests.support.certificates import Authority

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def kubeconfig(folder: Path, cluster: Any, user: Any = None, **more: Any) -> Path:
    config = {
        "current-context": "b",
        "contexts": [
            {"name": "a", "context": {"cluster": "none", "user": "none"}},
            {"name": "b", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config | more))
    return path


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return Authority(tmp_path).file


def test_a_pod_has_its_server_authority_and_token_in_the_mount(
    tmp_path: Path, authority: Path
) -> None:
    authority.rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("own")
    server = server_of_pod(POD, tmp_path)
    assert server.url == "https://10.0.0.1:6443"
    assert server.tls is not None
    assert server.tls.cert_store_stats()["x509_ca"] == 1
    assert server.token is not None
    assert server.token.read() == "own"
    assert "own" not in repr(server).replace("OwnToken", "")


def test_a_pod_with_ipv6_has_brackets_in_the_address(tmp_path: Path, authority: Path) -> None:
    authority.rename(tmp_path / "ca.crt")
    server = server_of_pod({"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path)
    assert server.url == "https://[fd00::1]:443"


def test_outside_a_pod_the_message_names_the_option() -> None:
    with pytest.raises(ValueError, match="--kubeconfig"):
        server_of_pod({})


def test_a_pod_without_a_mounted_token_is_told_the_field(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="automountServiceAccountToken"):
        server_of_pod(POD, tmp_path)


def test_the_current_context_of_a_kubeconfig_is_used(tmp_path: Path, authority: Path) -> None:
    cluster = {"server": "https://example.com:6443/", "certificate-authority": authority.name}
    server = server_of_kubeconfig(kubeconfig(tmp_path, cluster, {"token": "own"}))
    assert server.url == "https://example.com:6443"
    assert server.tls is not None
    assert server.tls.cert_store_stats()["x509_ca"] == 1
    assert server.token is not None
    assert server.token.read() == "own"


def test_the_authority_of_a_kubeconfig_can_be_in_the_file(tmp_path: Path, authority: Path) -> None:
    data = base64.b64encode(authority.read_bytes()).decode()
    cluster = {"server": "https://example.com/k8s/a", "certificate-authority-data": data}
    server = server_of_kubeconfig(kubeconfig(tmp_path, cluster))
    assert server.url == "https://example.com/k8s/a"
    assert server.tls is not None
    assert server.tls.cert_store_stats()["x509_ca"] == 1


def test_a_client_certificate_is_never_loaded(tmp_path: Path, authority: Path) -> None:
    user = {"client-certificate": "/nonexistent", "client-key": "/nonexistent"}
    cluster = {"server": "https://example.com", "certificate-authority": str(authority)}
    assert server_of_kubeconfig(kubeconfig(tmp_path, cluster, user)).token is None


@pytest.mark.parametrize(
    ("cluster", "cause"),
    [
        ({}, "not the address"),
        ({"server": "example.com"}, "not the address"),
        ({"server": "http://example.com"}, "has no TLS"),
        ({"server": "http://127.0.0.1.example.com"}, "has no TLS"),
        ({"server": "ftp://127.0.0.1"}, "has no TLS"),
        ({"server": "https://u:p@example.com"}, "not the address"),
        ({"server": "https://example.com?a=b"}, "not the address"),
        ({"server": "https://example.com", "insecure-skip-tls-verify": True}, "insecure"),
        ({"server": "https://example.com", "certificate-authority": "none"}, "No such file"),
        ({"server": "https://example.com", "certificate-authority-data": "%"}, "not a certificate"),
        ({"server": "https://example.com", "certificate-authority-data": "YQ=="}, "kubeconfig"),
    ],
)
def test_a_server_to_which_no_token_should_go_is_refused(
    tmp_path: Path, cluster: dict[str, Any], cause: str
) -> None:
    with pytest.raises(ValueError, match=cause):
        server_of_kubeconfig(kubeconfig(tmp_path, cluster))


def test_plain_http_is_for_this_machine_only() -> None:
    for url in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
        assert Server(url, None, None).url == url
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")
    assert not is_loopback("")


@pytest.mark.parametrize(
    "change",
    [
        {"current-context": "z"},
        {"current-context": None},
        {"contexts": "garbage"},
        {"contexts": [7, {"name": "b"}]},
        {"clusters": []},
        {"users": []},
    ],
)
def test_a_kubeconfig_with_a_gap_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = kubeconfig(tmp_path, {"server": "https://example.com"}, **change)
    with pytest.raises(ValueError, match=r"kubeconfig .*no entry"):
        server_of_kubeconfig(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300))
def test_no_content_of_a_kubeconfig_raises_anything_but_a_value_error(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="kubeconfig"):
        server_of_kubeconfig(path)
