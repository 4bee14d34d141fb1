"""The program without a cluster: its help, its errors, its completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from finetune_cli.commands.keys.command import COMMANDS as KEYS
from finetune_cli.commands.models.command import COMMANDS as MODELS
from finetune_cli.main import COMMANDS, finetune
from finetune_cli.terminal.errors import CommandError, describe_error
from tests.cli.conftest import Run

HEAVY = {"boto3", "kubernetes", "numpy", "pyarrow", "pydantic", "rich", "transformers", "yaml"}


@pytest.mark.parametrize("arguments", [["--help"], ["models", "cancle"], ["keys", "cancle"]])
def test_help_and_misspelt_commands_import_nothing_heavy(home: Path, arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from finetune_cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "heavy: []", ran.stdout


@pytest.mark.parametrize(
    "words",
    [
        *([name] for name in COMMANDS),
        *(["models", name] for name in MODELS),
        *(["keys", name] for name in KEYS),
    ],
)
def test_every_command_explains_itself(words: list[str]) -> None:
    result = CliRunner().invoke(finetune, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert f"Usage: finetune {' '.join(words)}" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["cancle"], 2, "unknown command 'cancle'. Did you mean 'cancel'?"),
        (["get"], 2, "missing NAME of a fine-tune"),
        (["cancel"], 2, "missing NAME of a fine-tune"),
        (["list", "--state", "done"], 2, "'done' is not one of"),
        (["list"], 1, "error: there is no kubeconfig at"),
        (["list"], 1, 'eval "$(python3 -m devcluster env)"'),
        (["--kubeconfig", "broken", "list"], 1, "error: cannot read the kubeconfig"),
        (
            ["--kubeconfig", "dead", "list"],
            1,
            "https://127.0.0.1:1: connection refused",
        ),
        (["--kubeconfig", "dead", "--context", "no", "list"], 1, "has no context 'no'"),
        (["--kubeconfig", "login", "list"], 1, "error: the exec plugin of the kubeconfig failed"),
        (["create"], 2, "error: missing training file: set -t FILE"),
        (["create", "-t", "nothing.jsonl"], 2, "error: there is no file nothing.jsonl"),
        (["create", "-t", "s3://acme/a", "--n_epochs", "99"], 2, "99 must be less than or equal"),
        (
            ["create", "-t", "s3://acme/a", "--set", "a"],
            2,
            "must have the form hyperparameters",
        ),
        (["create", "-f", "nothing.yaml"], 2, "error: cannot read nothing.yaml"),
        (["completion", "tcsh"], 2, "'tcsh' is not one of"),
        (["tokenize", "-m", "nothing", "a"], 1, "error: there is no kubeconfig"),
    ],
)
def test_every_error_is_a_sentence_and_an_exit_code(
    run: Run, home: Path, arguments: list[str], code: int, words: str
) -> None:
    (home / "broken").write_text("a: [")
    (home / "dead").write_text(DEAD)
    login = "exec: {apiVersion: client.authentication.k8s.io/v1, command: nothing-here}"
    (home / "login").write_text(DEAD.replace("token: abc", login))
    ran = run(*arguments)
    assert ran.returncode == code, ran.stderr
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "\x1b" not in ran.stderr
    assert ran.stdout == ""


DEAD = """
apiVersion: v1
kind: Config
current-context: dead
contexts: [{name: dead, context: {cluster: dead, user: me, namespace: team}}]
clusters: [{name: dead, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: me, user: {token: abc}}]
"""


def test_an_internal_error_hides_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = describe_error(ZeroDivisionError("division\nby zero"))
    assert found.message == "internal error: ZeroDivisionError: division by zero"
    assert "FINETUNE_TRACEBACK=1" in found.hint
    assert describe_error(CommandError("a", "b", code=3)).code == 3
    assert (
        describe_error(FileNotFoundError(2, "No such file", "x.csv")).message
        == "x.csv: No such file"
    )


def test_a_refusal_of_s3_names_the_environment_of_this_machine(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, aws: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (home / "a.jsonl").write_text("{}\n")
    (home / "dead").write_text(DEAD)
    ran = run("--kubeconfig", "dead", "create", "-t", "a.jsonl", "--upload-to", "s3://acme/data")
    assert ran.returncode == 1
    assert "no S3 credentials for s3://acme/data" in ran.stderr
    assert "in the environment, or set AWS_PROFILE" in ran.stderr
    assert "Secret" not in ran.stderr


def test_the_plugin_of_kubectl_calls_itself_so(home: Path) -> None:
    program = (
        "import sys; sys.argv[0] = '/usr/bin/kubectl-finetune'\n"
        "from finetune_cli.main import main\nmain()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, "models", "-h"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: kubectl finetune models" in ran.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(run: Run, shell: str) -> None:
    ran = run("completion", shell)
    assert ran.returncode == 0
    assert f"_FINETUNE_COMPLETE={shell}_complete" in ran.stdout
    if shell == "bash":
        assert (
            subprocess.run(["bash", "-n"], input=ran.stdout, text=True, check=False).returncode == 0
        )


def test_completion_knows_commands_and_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_FINETUNE_COMPLETE", "bash_complete")
    for words, wanted in (("finetune can", "cancel"), ("finetune create --n-e", "--n-epochs")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert f"plain,{wanted}" in run().stdout.splitlines()


def test_kubectls_completion_is_a_shell_script(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kubectl calls it: the words so far, the last one unfinished."""
    script = home / "kubectl_complete-finetune"
    script.write_text(run("completion", "kubectl").stdout)
    (home / "finetune").write_text(f'#!/bin/sh\nexec {sys.executable} -m finetune_cli "$@"\n')
    for path in (script, home / "finetune"):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    for words, wanted in ((["mod"], "models"), (["models", "pu"], "pull")):
        ran = subprocess.run([script, *words], capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines() == [wanted, ":4"]
