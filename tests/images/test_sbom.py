"""The packages of an image, and what an advisory source says about them. The source is a stub."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from images.advisories import NotCheckedError, find_advisories
from images.progress import CommandError
from images.sbom import Package, bill, packages_below

STATUS = """\
Package: libssl3
Status: install ok installed
Version: 3.0.17-1~deb12u2
Source: openssl
Description: a library
 with a second line

Package: gone
Status: deinstall ok config-files
Version: 1

Package: libgomp1
Status: install ok installed
Source: gcc-12 (12.2.0-14)
Version: 12.2.0-14+b1
"""
PACKAGES = [
    Package("Debian:12", "libgomp1", "12.2.0-14+b1", "gcc-12", "12.2.0-14"),
    Package("Debian:12", "libssl3", "3.0.17-1~deb12u2", "openssl", "3.0.17-1~deb12u2"),
    Package("PyPI", "typing_extensions", "4.15.0"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    site = tmp_path / "opt/venv/lib/python3.11/site-packages/typing_extensions-4.15.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: typing_extensions\nVersion: 4.15.0\n"
    )
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('NAME="Debian"\nVERSION_ID="12"\n')
    return tmp_path


def test_the_list_has_the_installed_packages_of_both_kinds(root: Path) -> None:
    assert packages_below(root) == PACKAGES
    made = bill("localhost/finetune-operator:abc", PACKAGES)
    assert made["bomFormat"] == "CycloneDX"
    assert made["metadata"]["component"]["version"] == "abc"
    assert [it["purl"] for it in made["components"]] == [
        "pkg:deb/debian/libgomp1@12.2.0-14%2Bb1?distro=debian-12",
        "pkg:deb/debian/libssl3@3.0.17-1~deb12u2?distro=debian-12",
        "pkg:pypi/typing-extensions@4.15.0",
    ]
    assert made == bill("localhost/finetune-operator:abc", PACKAGES)


def test_an_incomplete_list_is_an_error(root: Path) -> None:
    [metadata] = root.glob("opt/venv/lib/*/site-packages/*/METADATA")
    metadata.write_text("Name: typing_extensions\n")
    with pytest.raises(CommandError, match="no name and version"):
        packages_below(root)
    metadata.parent.rename(root / "elsewhere")
    with pytest.raises(CommandError, match="no PyPI package"):
        packages_below(root)


Answer = Callable[[list[dict[str, Any]]], Any]


@pytest.fixture
def source() -> Iterator[Callable[[Answer], str]]:
    """Start a server that answers each list of queries with `results`."""
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = json.dumps(answer(body["queries"])).encode()
                self.send_response(200 if self.path == "/v1/querybatch" else 404)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_advisory_is_found_by_the_source_package_and_on_every_page(
    source: Callable[[Answer], str],
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(queries: list[dict[str, Any]]) -> Any:
        asked.extend(queries)
        results: list[dict[str, Any]] = [{} for _ in queries]
        for query, result in zip(queries, results, strict=True):
            if query["package"]["name"] == "openssl":
                is_second = "page_token" in query
                result["vulns"] = [{"id": "DSA-2" if is_second else "DSA-1"}]
                if not is_second:
                    result["next_page_token"] = "more"
        return {"results": results}

    found = find_advisories(source(answer), PACKAGES)
    assert [*map(str, found)] == [
        "libssl3 3.0.17-1~deb12u2: DSA-1",
        "libssl3 3.0.17-1~deb12u2: DSA-2",
    ]
    assert asked[0] == {
        "package": {"name": "gcc-12", "ecosystem": "Debian:12"},
        "version": "12.2.0-14",
    }


def test_no_advisory_is_good_only_with_an_answer_for_each_package(
    source: Callable[[Answer], str],
) -> None:
    assert find_advisories(source(lambda queries: {"results": [{}] * len(queries)}), PACKAGES) == []
    for wrong in (
        {"results": [{}]},
        {"results": [{}, {}, {}, {}]},
        {"results": None},
        {"results": [{}, {}, {"vulns": [{}]}]},
        {"results": [{}, {}, None]},
        {"error": "quota"},
        [],
        {"results": [{}, {}, {"next_page_token": "again"}]},
    ):
        address = source(
            lambda queries, wrong=wrong: (  # type: ignore[misc]
                {"results": [{"next_page_token": "again"}]} if len(queries) == 1 else wrong
            )
        )
        with pytest.raises(NotCheckedError):
            find_advisories(address, PACKAGES)


def test_without_a_source_nothing_counts_as_checked() -> None:
    for address in (None, "", "http://127.0.0.1:9"):
        with pytest.raises(NotCheckedError):
            find_advisories(address, PACKAGES)


@pytest.mark.parametrize(
    "packages",
    [[], [Package("PyPI", "a", "")], [Package("PyPI", "", "1")], [Package("Debian:", "a", "1")]],
)
def test_a_skipped_package_means_not_checked(
    source: Callable[[Answer], str], packages: list[Package]
) -> None:
    address = source(lambda queries: {"results": [{}] * len(queries)})
    with pytest.raises(NotCheckedError):
        find_advisories(address, packages)
