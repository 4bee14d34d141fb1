"""The file of digests: what a registry has answered goes into it, and builds use it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from examples.demo.kind import Kind
from examples.demo.terminal import DemoError
from images import pins
from images.__main__ import main
from images.pins import base_for_build, dockerfile_base, pin, pinned, read_pins
from images.references import BaseImageError
from tests.demo.test_kind import Programs
from tests.images.registry_server import (
    EMPTY,
    INDEX_DIGEST,
    MANIFEST,
    MANIFEST_DIGEST,
    MANIFEST_TYPE,
    RegistryServer,
    Reply,
    index,
)

UPSTREAM = "docker.io/library/python:3.12-slim"
RECORDER = """#!{python}
import json, pathlib, sys
with pathlib.Path(__file__).with_name("calls").open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, which does not exist yet."""
    path = tmp_path / "base-digests.json"
    monkeypatch.setattr(pins, "FILE", path)
    return path


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["images", *words])
    return main()


def test_the_digest_of_the_index_is_written_and_read(
    registry: RegistryServer,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"{registry.host}/base:1"
    file.write_text(json.dumps({"python:3": EMPTY}))
    assert run_main(monkeypatch, "pin", name) == 0
    assert read_pins() == {"python:3": EMPTY, name: INDEX_DIGEST}
    assert pinned(name, read_pins()) == f"{name}@{INDEX_DIGEST}"
    output = capsys.readouterr()
    assert output.out == f"{name}\t{INDEX_DIGEST}\n"
    assert "Commit it" in output.err
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.stat().st_mode & 0o777 == 0o644


def test_the_file_does_not_depend_on_the_order_of_the_commands(
    registry: RegistryServer, file: Path
) -> None:
    names = [f"{registry.host}/{name}:1" for name in ("b", "a", "c")]
    for name in names:
        pin(name)
    text = file.read_text()
    file.unlink()
    for name in reversed(names):
        pin(name)
    assert file.read_text() == text
    assert text.endswith("}\n")


def test_a_newer_digest_replaces_the_former_one(
    registry: RegistryServer, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{registry.host}/base:1"
    pin(name)
    registry.reply = lambda _: index(MANIFEST_DIGEST, MANIFEST, MANIFEST_TYPE)
    assert pin(name) == MANIFEST_DIGEST
    assert read_pins() == {name: MANIFEST_DIGEST}
    assert "has one platform" in capsys.readouterr().err


def test_the_same_digest_leaves_the_file(registry: RegistryServer, file: Path) -> None:
    pin(f"{registry.host}/base:1")
    before = file.stat().st_ino
    pin(f"{registry.host}/base:1")
    assert file.stat().st_ino == before


@pytest.mark.parametrize("before", [None, {UPSTREAM: EMPTY}], ids=["no file", "file"])
@pytest.mark.parametrize(
    "reply",
    [Reply(404), index(EMPTY), Reply(200, b"<html>", {"Docker-Content-Digest": EMPTY})],
    ids=["404", "wrong digest", "garbage"],
)
def test_without_an_answer_the_file_stays_as_it_is(
    registry: RegistryServer,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: dict[str, str] | None,
    reply: Reply,
) -> None:
    if before:
        file.write_text(json.dumps(before))
    registry.reply = lambda _: reply
    assert run_main(monkeypatch, "pin", f"{registry.host}/base:1") == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert [path.name for path in file.parent.iterdir()] == ([file.name] if before else [])
    assert not before or file.read_text() == json.dumps(before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"base-digests\.json: .*Fix the file"),
        ("{", r"Fix the file"),
        ("[" * 100_000, r"Fix the file"),
        ("\udcff", r"Fix the file"),
        ("[]", r"is not a JSON object"),
        ('{"a:1": null}', r"the entry 'a:1' has no digest"),
        ('{"a:1": "sha256:12"}', r"run `python3 -m images pin a:1`"),
        (f'{{"a:1": "{EMPTY}\\n"}}', r"has no digest"),
        (f'{{"a:1": "{EMPTY}", "a:1": "{INDEX_DIGEST}"}}', r"an entry occurs twice"),
    ],
    ids=["empty", "cut", "deep", "bytes", "list", "null", "short", "line", "twice"],
)
def test_a_broken_file_stops_builds_and_is_not_replaced(
    registry: RegistryServer, file: Path, text: str, message: str
) -> None:
    file.write_text(text, errors="surrogateescape")
    before = file.read_bytes()
    for command in (lambda: base_for_build("a:1"), lambda: pin(f"{registry.host}/base:1")):
        with pytest.raises(BaseImageError, match=message):
            command()
    assert file.read_bytes() == before
    assert registry.asked == []


def test_only_exactly_the_same_reference_is_pinned() -> None:
    digests = {"docker.io/library/python:3": EMPTY}
    assert pinned("docker.io/library/python:3", digests) == f"docker.io/library/python:3@{EMPTY}"
    for other in ("python:3", "docker.io/library/python:3.12", f"python:3@{EMPTY}"):
        assert pinned(other, digests) == other


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("python:3", "the base image python:3 is not pinned: run `python3 -m images pin python:3`"),
        (f"python:3@{EMPTY}", ""),
        ("localhost/finetune-base:1", ""),
    ],
)
def test_a_base_image_without_a_digest_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], name: str, note: str
) -> None:
    assert base_for_build(name) == name
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2] for line in lines] == ([note] if note else [])


def recorded_build(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> tuple[list[str], str]:
    """The call of `buildah bud` by `python3 -m images build`, and the tag of the image."""
    folder.mkdir()
    program = folder / "buildah"
    program.write_text(RECORDER.replace("{python}", sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("UV_CACHE_DIR", str(folder / "uv"))
    assert run_main(monkeypatch, "build", "--only", "operator", *options) == 0
    calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    (bud,) = [call for call in calls if call[0] == "bud"]
    return bud, bud[bud.index("--tag") + 1]


def test_a_build_uses_the_digest_and_its_labels_show_it(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, plain_tag = recorded_build(tmp_path / "1", monkeypatch, "--base", UPSTREAM)
    assert f"BASE={UPSTREAM}" in plain
    assert not [word for word in plain if "base.digest" in word]
    assert f"{UPSTREAM} is not pinned: run" in capsys.readouterr().err

    file.write_text(json.dumps({UPSTREAM: INDEX_DIGEST}))
    call, tag = recorded_build(tmp_path / "2", monkeypatch, "--base", UPSTREAM)
    assert call[call.index(f"BASE={UPSTREAM}@{INDEX_DIGEST}") - 1] == "--build-arg"
    labels = [word for name, word in pairwise(call) if name == "--label"]
    assert f"org.opencontainers.image.base.name={UPSTREAM}" in labels
    assert f"org.opencontainers.image.base.digest={INDEX_DIGEST}" in labels
    assert "not pinned" not in capsys.readouterr().err
    assert tag != plain_tag
    assert run_main(monkeypatch, "tags", "--base", UPSTREAM) == 0
    assert f"operator\t{tag.removeprefix('localhost/')}\n" in capsys.readouterr().out


def test_docker_gets_the_digest_and_the_labels(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    default = dockerfile_base()
    assert run_main(monkeypatch, "docker-arguments") == 0
    output = capsys.readouterr()
    label = f"--label=org.opencontainers.image.base.name={default}"
    assert output.out.split() == [f"--build-arg=BASE={default}", label]
    assert "is not pinned" in output.err

    file.write_text(json.dumps({default: INDEX_DIGEST}))
    assert run_main(monkeypatch, "docker-arguments") == 0
    output = capsys.readouterr()
    assert output.out.split() == [
        f"--build-arg=BASE={default}@{INDEX_DIGEST}",
        label,
        f"--label=org.opencontainers.image.base.digest={INDEX_DIGEST}",
    ]
    assert output.err == ""


def recorded_kind_builds(folder: Path) -> tuple[list[list[str]], str]:
    """The calls of Docker by the demo on kind, and the output."""
    folder.mkdir()
    programs = Programs(folder / "bin", {})
    environ = {"PATH": f"{programs.folder}:/usr/bin:/bin", "HOME": str(folder)}
    command = Kind(folder, environ).build_command()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return programs.called("docker", "build"), done.stdout


def test_the_demo_on_kind_builds_from_the_digest(tmp_path: Path, file: Path) -> None:
    default = dockerfile_base()
    plain, output = recorded_kind_builds(tmp_path / "1")
    assert len(plain) == 4
    assert all(f"--build-arg=BASE={default}" in build for build in plain)
    assert output.splitlines()[0].startswith(
        f"the base image {default} is not pinned: run `python3"
    )

    file.write_text(json.dumps({default: INDEX_DIGEST}))
    builds, output = recorded_kind_builds(tmp_path / "2")
    label = f"--label=org.opencontainers.image.base.digest={INDEX_DIGEST}"
    assert len(builds) == 4
    for build, before in zip(builds, plain, strict=True):
        assert f"--build-arg=BASE={default}@{INDEX_DIGEST}" in build
        assert label in build
        assert build[4].startswith("--tag=")
        assert build[4] != before[4]
    assert "not pinned" not in output


def test_the_demo_on_kind_stops_at_a_broken_file(tmp_path: Path, file: Path) -> None:
    file.write_text("[]")
    with pytest.raises(DemoError, match="is not a JSON object"):
        recorded_kind_builds(tmp_path / "1")


def test_the_dockerfile_names_an_image_that_can_be_pinned() -> None:
    assert str(pins.parse_reference(dockerfile_base())) == dockerfile_base()
