"""Certificates have the right subjects, and keys are private."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from devcluster.certificates import CertificateError, Subject, public_key
from devcluster.credentials import Credentials

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    made = Credentials(tmp_path_factory.mktemp("credentials"), "https://10.0.0.1:1")
    made.create(["10.0.0.1"])
    made.create_node("devcluster", "10.0.0.1")
    return made


def text_of(certificate: Path) -> str:
    command = ["openssl", "x509", "-noout", "-text", "-in", str(certificate)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_certificate_is_signed_by_the_authority(credentials: Credentials) -> None:
    for name in ("apiserver", "loopback", "admin", "kubelet", "coredns"):
        pair = credentials.pair(name)
        authority = str(credentials.authority.certificate)
        command = ["openssl", "verify", "-CAfile", authority, str(pair.certificate)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(pair.certificate, pair.key)


def test_the_apiserver_is_trusted_under_every_address_it_has(credentials: Credentials) -> None:
    text = text_of(credentials.pair("apiserver").certificate)
    for name in ("IP Address:127.0.0.1", "IP Address:10.0.0.1", "DNS:kubernetes.default.svc"):
        assert name in text


def test_the_kubelet_is_a_node_of_its_name(credentials: Credentials) -> None:
    text = text_of(credentials.pair("kubelet").certificate)
    assert "O = system:nodes, CN = system:node:devcluster" in text.replace("O=", "O = ").replace(
        "CN=", "CN = "
    )


def test_keys_and_kubeconfigs_are_for_their_owner_only(credentials: Credentials) -> None:
    for path in credentials.folder.iterdir():
        if path.suffix in (".key", ".kubeconfig"):
            assert path.stat().st_mode & 0o077 == 0, path.name


def test_what_openssl_refuses_is_an_error_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="No such file"):
        public_key(tmp_path / "missing.key", tmp_path / "public.key")


def test_a_subject_without_names_has_no_empty_extension() -> None:
    assert "subjectAltName" not in Subject("somebody").extensions()
