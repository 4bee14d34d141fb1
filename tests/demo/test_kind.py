"""The demo on kind, with programs that only record how they are called.

Neither Docker nor kind is on the machines of the tests. `tests/integration/test_kind_demo.py` has
the real API server and S3 server.
"""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.demo import kind
from examples.demo.bucket import Bucket
from examples.demo.kind import NAME, S3_NAMESPACE, Kind, kind_config, s3_objects
from examples.demo.terminal import DemoError, Terminal
from tests.chart.conftest import program
from tests.chart.schemas import swagger_file, write_schemas

GET_SECRET = f"kubectl --namespace={S3_NAMESPACE} get secret"
RECORDER = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
program = pathlib.Path(__file__).name
stdin = sys.stdin.read() if "--filename=-" in sys.argv else ""
with (folder / "calls").open("a") as log:
    log.write(json.dumps([[program, *sys.argv[1:]], stdin]) + "\\n")
answers = json.loads((folder / "answers").read_text())
for words, answer in answers.items():
    if " ".join([program, *sys.argv[1:]]).startswith(words):
        if answer is None:
            sys.exit("not found")
        print(answer)
"""


class Programs:
    """A folder for PATH. answers: what a command that starts with these words prints."""

    def __init__(self, folder: Path, answers: dict[str, str | None]) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "answers").write_text(json.dumps(answers))
        for name in kind.PROGRAMS:
            path = folder / name
            path.write_text(RECORDER.replace("{python}", sys.executable))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @property
    def calls(self) -> list[tuple[list[str], str]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [(command, stdin) for command, stdin in map(json.loads, lines)]

    def called(self, *words: str) -> list[list[str]]:
        return [command for command, _ in self.calls if command[: len(words)] == list(words)]


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The settings with which buckets were waited for."""
    found: list[dict[str, str]] = []

    class Recorded(Bucket):
        def __init__(self, name: str, s3: dict[str, str]) -> None:
            super().__init__(name, s3)
            found.append(dict(s3))

        def create(self) -> None:
            """The server is not there."""

    monkeypatch.setattr(kind, "Bucket", Recorded)
    return found


def start(tmp_path: Path, answers: dict[str, str | None]) -> tuple[Programs, Kind, Any]:
    programs = Programs(tmp_path / "bin", answers)
    provider = Kind(tmp_path, {"PATH": f"{programs.folder}:/usr/bin:/bin", "HOME": str(tmp_path)})
    return programs, provider, provider.start(Terminal())


def test_missing_programs_are_named_with_the_other_way(tmp_path: Path) -> None:
    programs = Programs(tmp_path / "bin", {})
    for name in ("docker", "kind"):
        (programs.folder / name).unlink()
    with pytest.raises(DemoError, match=r"docker and kind are not on PATH.*without CLUSTER"):
        Kind(tmp_path, {"PATH": str(programs.folder)})


def test_a_new_cluster_gets_s3_with_a_new_secret(
    tmp_path: Path, buckets: list[dict[str, str]]
) -> None:
    programs, _, place = start(tmp_path, {"kind get clusters": "other", GET_SECRET: ""})
    (created,) = programs.called("kind", "create", "cluster")
    assert created[3:5] == ["--name", NAME]
    config = json.loads(Path(created[created.index("--config") + 1]).read_text())
    assert config == kind_config()
    assert not programs.called("kind", "export")
    assert place.kubeconfig == str(tmp_path / "kind.kubeconfig")
    assert buckets[0]["AWS_ENDPOINT_URL"] == "http://127.0.0.1:30070"
    assert place.s3["AWS_ENDPOINT_URL"] == f"http://s3.{S3_NAMESPACE}.svc:7070"
    secret = place.s3["AWS_SECRET_ACCESS_KEY"]
    assert len(secret) == 40
    assert buckets[0]["AWS_SECRET_ACCESS_KEY"] == secret
    assert not [command for command, _ in programs.calls if secret in " ".join(command)]
    assert [stdin for _, stdin in programs.calls if secret in stdin]
    assert "127.0.0.1" in place.env["NO_PROXY"]
    assert place.again == "make demo CLUSTER=kind"


def test_a_running_cluster_is_used_again_with_its_secret(
    tmp_path: Path, buckets: list[dict[str, str]]
) -> None:
    secret = json.dumps({"data": {"ROOT_SECRET_KEY": "c2VjcmV0"}})
    answers = {
        "kind get clusters": f"other\n{NAME}",
        GET_SECRET: secret,
    }
    programs, _, place = start(tmp_path, answers)
    assert not programs.called("kind", "create")
    assert programs.called("kind", "export", "kubeconfig", "--name", NAME)
    assert place.s3["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert buckets == [place.s3_here]


def test_a_cluster_that_does_not_answer_gets_no_other_secret(
    tmp_path: Path, buckets: list[dict[str, str]]
) -> None:
    with pytest.raises(DemoError, match="not found"):
        start(tmp_path, {"kind get clusters": NAME, GET_SECRET: None})
    assert not buckets


def test_the_three_images_are_built_and_loaded(
    tmp_path: Path, buckets: list[dict[str, str]]
) -> None:
    programs, provider, place = start(tmp_path, {GET_SECRET: ""})
    command = provider.build_command()
    subprocess.run(command, env=place.env, check=True, capture_output=True, timeout=60)
    images = provider.deliver(Terminal(), place)
    assert list(images) == ["operator", "gateway", "prepare", "trainer"]
    built = {build[3].removeprefix("--target="): build[4] for build in programs.called("docker")}
    assert built == {image: f"--tag={reference}" for image, reference in images.items()}
    assert all(reference.startswith("localhost/finetune-") for reference in images.values())
    (loaded,) = programs.called("kind", "load", "docker-image")
    assert loaded[3:] == [*images.values(), "--name", NAME]


def test_only_this_machine_reaches_the_port_of_s3() -> None:
    (node,) = kind_config()["nodes"]
    (mapping,) = node["extraPortMappings"]
    assert mapping["listenAddress"] == "127.0.0.1"
    service = next(item for item in s3_objects("x") if item["kind"] == "Service")
    assert service["spec"]["ports"][0]["nodePort"] == mapping["containerPort"]


def test_the_objects_are_what_an_api_server_takes(tmp_path: Path) -> None:
    swagger = swagger_file()
    if swagger is None:
        pytest.skip("no Kubernetes module in Go's cache: `python3 -m devcluster build` fetches it")
    path = tmp_path / "objects.json"
    items = {"apiVersion": "v1", "kind": "List", "items": s3_objects("x")}
    path.write_text(json.dumps(items))
    options = ("-strict", "-summary", "-schema-location", write_schemas(swagger, tmp_path))
    ran = subprocess.run(
        [program("kubeconform"), *options, str(path)], capture_output=True, text=True, check=False
    )
    assert "Valid: 4, Invalid: 0, Errors: 0, Skipped: 0" in ran.stdout, ran.stdout + ran.stderr
