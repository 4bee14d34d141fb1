"""No text of other people reaches a terminal as it is, whatever the command."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import finetune_cli
from finetune_api.layout import RunLayout
from finetune_api.text.sanitizing import is_deceptive
from finetune_cli.main import COMMANDS
from finetune_storage.s3 import Storage
from tests.cli.conftest import Ran, Run
from tests.cli.entry import PROGRAM
from tests.cli.hostile import HOSTILE, KEY_ID, UID, HostileCluster, hostile_serving, served

JOINERS = str.maketrans("", "", "\u200c\u200d\ufe0e\ufe0f")
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AGKJ]|\x1b\]8;;\x1b\\")
FORGED = re.compile(r"^(error: forged|hint: forged|forged)", re.MULTILINE)

COMMAND_LINES = [
    ("list",),
    ("list", "-A"),
    ("list", "-o", "json"),
    ("list", "-o", "yaml"),
    ("get", "tone"),
    ("get", "tone", "-o", "json"),
    ("get", "tone", "-o", "yaml"),
    ("follow", "tone"),
    ("follow", "tone", "-o", "json"),
    ("follow", "tone", "-o", "yaml"),
    ("cancel", "tone"),
    ("suspend", "tone"),
    ("resume", "tone"),
    ("results", "tone"),
    ("results", "tone", "--plot"),
    ("results", "tone", "-c", HOSTILE[:20]),
    ("results", "tone", "-o", "json"),
    ("results", "tone", "-o", "yaml"),
    ("report", "tone", "--to", "-"),
    ("report", "tone", "--to", f"report {HOSTILE[6:16].replace('/', '')}.html".replace("\0", "")),
    ("logs", "tone"),
    ("logs", "tone", "--attempt", "1"),
    ("models", "list"),
    ("models", "list", "-o", "json"),
    ("models", "get", "tone"),
    ("models", "get", "tone", "-o", "yaml"),
    ("models", "pull", "tone"),
    ("models", "delete", "tone"),
    ("models", "serve", "tone"),
    ("models", "serve", "tone", "--runtime", HOSTILE[:20]),
    ("models", "stop", "tone"),
    ("models", "delete", "tone", "--yes"),
    ("keys", "list"),
    ("keys", "list", "-o", "json"),
    ("keys", "list", "-o", "yaml"),
    ("keys", "create", "--for", "tone"),
    ("keys", "create", "--for", HOSTILE[:20]),
    ("keys", "revoke", KEY_ID),
    ("keys", "revoke", HOSTILE),
    ("complete", "tone", "-p", "hello"),
    ("evaluate", "tone", "-f", "data.csv"),
    ("evaluate", "tone", "-f", HOSTILE[:20]),
    ("evaluate", "tone", "-f", "data.csv", "--pattern", f"({HOSTILE[:20]}"),
    ("tokenize", "-m", "tone", "hello"),
    ("doctor",),
    ("doctor", "-o", "json"),
    ("create", "-f", "manifest.yaml"),
    ("create", "-f", "manifest.yaml", "-o", "yaml"),
    ("run", "-f", "manifest.yaml"),
    ("serve", "--models", "manifest.yaml"),
    ("prepare-data", "data.csv", "--yes"),
    ("completion", "bash"),
    ("nonsense\x1b]0;owned\x07\u202e",),
    ("get", "--nonsense\x1b]0;owned\x07\u202e"),
    ("--context", "other\x1b]0;owned\x07\u202e", "list"),
]


@pytest.fixture
def cluster(
    home: Path, storage: Storage, bucket: str, aws: pytest.MonkeyPatch
) -> Iterator[HostileCluster]:
    """A kubeconfig of a hostile cluster, and hostile files in S3 and in the current folder."""
    made = HostileCluster(bucket)
    layout = RunLayout.of(f"s3://{bucket}/out", "team", "tone", UID)
    header = f'step,training_loss,"{HOSTILE}"\n'
    storage.write_bytes(layout.results, f"{header}1,2.5,1\n2,2,1\n".encode())
    storage.write_bytes(layout.report, f"<html>{HOSTILE}\n</html>\n".encode() + b"\xff")
    entries = [{"path": HOSTILE, "size": 1, "sha256": "0" * 64}]
    manifest = {"kind": HOSTILE, "files": entries, "separator": HOSTILE}
    storage.write_bytes(layout.root.child("m"), json.dumps(manifest).encode())
    spec = {"model": HOSTILE, "trainingFile": HOSTILE, HOSTILE: HOSTILE}
    known = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTune", "spec": spec}
    (home / "manifest.yaml").write_text(yaml.safe_dump({**known, "metadata": {"name": "tone"}}))
    cell = HOSTILE.replace("\0", "")
    rows = "".join(f'"{cell}{number}","{cell}"\n' for number in range(3))
    (home / "data.csv").write_text(f'prompt,completion,"{HOSTILE[6:30]}"\n{rows}')
    with served(made) as server:
        context = {"cluster": HOSTILE, "user": HOSTILE, "namespace": "team"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": HOSTILE,
            "clusters": [{"name": HOSTILE, "cluster": {"server": server}}],
            "contexts": [{"name": HOSTILE, "context": context}],
            "users": [{"name": HOSTILE, "user": {"token": "x"}}],
        }
        (home / "config.yaml").write_text(yaml.safe_dump(config))
        aws.setenv("KUBECONFIG", str(home / "config.yaml"))
        yield made


def assert_harmless(text: str, *, is_document: bool = False) -> None:
    left = {ascii(it) for it in text.translate(JOINERS) if it not in "\n\t" and is_deceptive(it)}
    assert not left, (left, text)
    assert is_document or not FORGED.search(text), text


def assert_no_bug(ran: Ran) -> None:
    assert "internal error" not in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr


def is_document(arguments: tuple[str, ...]) -> bool:
    """Whether stdout is a file or a log, which has lines of its own."""
    return (
        arguments in {("results", "tone"), ("report", "tone", "--to", "-")} or "logs" in arguments
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=lambda it: ascii(" ".join(it)))
def test_every_command_is_harmless_in_a_hostile_cluster(
    run: Run, cluster: HostileCluster, arguments: tuple[str, ...]
) -> None:
    ran = run(*arguments)
    assert_no_bug(ran)
    assert_harmless(ran.stdout, is_document=is_document(arguments))
    assert_harmless(ran.stderr)
    if "-o" in arguments and "create" not in arguments and not ran.stderr:
        text = ran.stdout
        found = json.loads(text) if "json" in arguments else yaml.safe_load(text)
        originals = {"list": cluster.finetune, "get": cluster.finetune}
        if arguments[0] in originals:
            [item] = found.get("items", [found])
            assert item == originals[arguments[0]]
        if arguments[0] == "follow":
            assert found == cluster.finetune["status"]


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500])
def test_a_refusal_is_harmless(run: Run, cluster: HostileCluster, status: int) -> None:
    cluster.failing = status
    for arguments in (
        ("get", "tone"),
        ("doctor",),
        ("models", "list"),
        ("keys", "list"),
        ("keys", "create", "--for", "tone"),
        ("logs", "tone"),
    ):
        ran = run(*arguments)
        assert_no_bug(ran)
        assert_harmless(ran.stdout)
        assert_harmless(ran.stderr)


@pytest.mark.slow
def test_the_log_lines_in_a_status_are_harmless(run: Run, cluster: HostileCluster) -> None:
    cluster.has_pods = False
    ran = run("logs", "tone")
    assert ran.stdout.startswith("begin \\x1b]0;owned")
    assert_harmless(ran.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["ready", "asleep", "failed"])
def test_a_served_model_is_harmless(run: Run, cluster: HostileCluster, state: str) -> None:
    serve_in(cluster, state)
    for arguments, word in (
        (("models", "serve", "tone"), state),
        (("models", "serve", "tone", "--no-wait"), "already served"),
        (("models", "get", "tone"), f"{state} since begin"),
        (("models", "list"), "SERVING"),
        (("doctor",), "served models"),
    ):
        ran = run(*arguments)
        assert word in ran.stdout
        assert_no_bug(ran)
        assert_harmless(ran.stdout)
        assert_harmless(ran.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["ready", "failed"])
def test_a_served_model_is_harmless_on_a_terminal(cluster: HostileCluster, state: str) -> None:
    serve_in(cluster, state)
    for arguments in (("models", "serve", "tone"), ("models", "get", "tone")):
        seen = OWN.sub("", on_terminal(*arguments)).replace("\r", "")
        assert state in seen
        assert "Traceback" not in seen
        assert_harmless(seen)


def serve_in(cluster: HostileCluster, state: str) -> None:
    """The Model has spec.serve, and a hostile status."""
    del cluster.model["spec"]["serving"]
    cluster.model["spec"]["serve"] = {"runtime": "small", "replicas": 1, "idleSeconds": 900}
    cluster.model["status"] = {"serving": hostile_serving(state)}


@pytest.mark.slow
def test_the_live_line_is_harmless(run: Run, cluster: HostileCluster) -> None:
    """A pipe shows it as lines; all kinds of states."""
    running = [{"state": "running"}, {"state": "pending", "progress": None}]
    for changes in running:
        cluster.finetune["status"].update(changes)
        ended = json.loads(json.dumps(cluster.finetune))
        ended["status"]["state"] = "cancelled"
        cluster.later = ended
        ran = run("follow", "tone")
        assert ran.returncode == 3, ran.stderr
        assert_no_bug(ran)
        assert_harmless(ran.stdout)
        assert_harmless(ran.stderr)


TYPED = [
    ("list",),
    ("get", "tone"),
    ("follow", "tone"),
    ("doctor",),
    ("logs", "tone"),
    ("results", "tone", "--plot"),
    ("models", "get", "tone"),
    ("models", "delete", "tone"),
    ("keys", "list"),
    ("keys", "create", "--for", "tone"),
    ("keys", "revoke", KEY_ID),
    ("prepare-data", "data.csv"),
    ("create", "-f", "manifest.yaml"),
    ("--context", "other\x1b]0;owned\x07\u202e", "list"),
]


@pytest.mark.slow
def test_the_live_line_of_a_terminal_is_harmless(cluster: HostileCluster) -> None:
    cluster.finetune["status"].update({"state": "pending", "progress": None, "events": []})
    cluster.later = json.loads(json.dumps(cluster.finetune))
    cluster.later["status"]["state"] = "cancelled"
    cluster.pause = 1.0
    seen = on_terminal("follow", "tone")
    assert "pending  begin" in OWN.sub("", seen)
    assert_harmless(OWN.sub("", seen).replace("\r", ""))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", TYPED, ids=lambda it: ascii(" ".join(it)))
def test_a_terminal_gets_only_sequences_of_the_program(
    cluster: HostileCluster, home: Path, arguments: tuple[str, ...]
) -> None:
    """A pseudoterminal for stdin, stdout, and stderr; each question is answered with no."""
    seen = on_terminal(*arguments)
    assert "Traceback" not in seen
    assert "\x1b[8m" not in seen
    assert_harmless(OWN.sub("", seen).replace("\r", ""), is_document=is_document(arguments))
    assert "https://evil.example" not in seen or "[link=" in seen


def on_terminal(*arguments: str) -> str:
    """What a terminal of 80 columns receives."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS")
    streams = {"stdin": other, "stdout": other, "stderr": other}
    child = subprocess.Popen([*PROGRAM, *arguments], env=environment, **streams)  # type: ignore[call-overload]
    os.close(other)
    os.write(main, b"n\n" * 8)
    seen, end = b"", time.monotonic() + 60
    try:
        while time.monotonic() < end and select.select([main], [], [], 60)[0]:
            try:
                block = os.read(main, 65536)
            except OSError:  # the program has ended
                break
            seen += block
        child.wait(10)
    finally:
        child.kill()
        child.wait()
        os.close(main)
    return seen.decode()


# --- the structure: only the edge writes ----------------------------------------------------------

PACKAGE = Path(finetune_cli.__file__).parent
EDGE = {"terminal/output.py"}  # the module that writes with click
WITH_RICH = {"terminal/console.py"}  # the module that makes texts for rich
WRITERS = {"echo", "secho", "style", "confirm", "prompt", "pause", "echo_via_pager", "progressbar"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
RICH = {"rich.live", "rich.cells"}  # an own renderable, and the width of a text


def bypasses(source: str, place: str) -> Iterator[str]:
    """The expressions of a module that write without the edge."""
    for node in ast.walk(ast.parse(source)):
        line = f"{place}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            names = {it.name for it in node.names}
            if module == "click" and names & WRITERS and place not in EDGE:
                yield f"{line}: imports {names}"
            whole = {module or ""} if module else names
            used = {it for it in whole if it.split(".")[0] == "rich"} - RICH
            if used and place not in WITH_RICH and not _is_for_types(source, node):
                yield f"{line}: imports {used}"
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in {"print", "input"}:
            yield f"{line}: {called.id}()"
        if isinstance(called, ast.Attribute):
            owner = ast.unparse(called.value)
            if owner == "click" and called.attr in WRITERS and place not in EDGE:
                yield f"{line}: click.{called.attr}()"
            if called.attr in {"print", "print_exception", "print_exc", "rule"} and (
                place not in WITH_RICH
            ):
                yield f"{line}: {owner}.{called.attr}()"
            if called.attr in {"write", "writelines"} and set(owner.split(".")) & STREAMS:
                yield f"{line}: {owner}.{called.attr}()"


def _is_for_types(source: str, node: ast.stmt) -> bool:
    """Whether an import is below `if TYPE_CHECKING`."""
    return any(
        isinstance(it, ast.If) and ast.unparse(it.test) == "TYPE_CHECKING" and node.lineno in lines
        for it in ast.walk(ast.parse(source))
        if isinstance(it, ast.If)
        for lines in [range(it.lineno, (it.end_lineno or 0) + 1)]
    )


def test_no_module_of_the_command_line_writes_without_the_edge() -> None:
    found = [
        problem
        for path in sorted(PACKAGE.rglob("*.py"))
        for problem in bypasses(path.read_text(), path.relative_to(PACKAGE).as_posix())
    ]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "import click\nclick.echo(1)",
        "from click import echo",
        "import sys\nsys.stdout.write('')",
        "import sys\nsys.stderr.buffer.write(b'')",
        "from rich.console import Console",
        "import rich.text",
        "screen.console.print(1)",
        "import traceback\ntraceback.print_exc()",
    ],
)
def test_a_module_that_writes_without_the_edge_is_found(source: str) -> None:
    assert [*bypasses(source, "commands/new.py")]


def test_the_list_of_command_lines_has_every_command() -> None:
    assert {it[0] for it in COMMAND_LINES} >= set(COMMANDS)


def test_help_has_nothing_to_escape(run: Run) -> None:
    for name in COMMANDS:
        assert_harmless(run(name, "--help").stdout)
