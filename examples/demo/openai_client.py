"""OpenAI's own client against the gateway, in an environment of its own.

The commands are those of OpenAI's documentation, unchanged: only two variables are different.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.demo.cluster import NAMESPACE, RELEASE, Cluster
from examples.demo.terminal import DemoError, Terminal, output

VERSION = "0.28.1"  # the last one with `fine_tunes.create`; later command lines lack it
PINS = Path(__file__).with_name(f"openai-{VERSION}.txt")
OWNER, USER = "anna", "bert"
ROLES = {OWNER: "finetune-owner", USER: "finetune-user"}
SERVICE = f"service/{RELEASE}-finetune-operator-gateway"
SHOWN_LINES = 5  # at the begin and at the end of an output
JOB = re.compile(r"^Created fine-tune: (ft-\S+)$", re.MULTILINE)
FILE = re.compile(r"^Uploaded file from \S+: (file-\S+)$", re.MULTILINE)
MODEL = re.compile(r"^openai api completions\.create -m (\S+) -p", re.MULTILINE)
COLOR = re.compile(r"\x1b\[[0-9;]*m")
PROGRESS = "Upload progress:"  # a bar of the client
PLAIN = re.compile(r"[\w .,>?'-]* [\w .,>?'-]*")  # needs no escapes in double quotes
SUCCESS = "Job complete! Status: succeeded"


@dataclass(frozen=True)
class Account:
    """A user of the gateway."""

    name: str
    key: str


def account_objects() -> list[dict[str, object]]:
    """A ServiceAccount for each user, with its role of the chart."""
    made: list[dict[str, object]] = []
    for name, role in ROLES.items():
        metadata = {"name": name, "namespace": NAMESPACE}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
        api = "rbac.authorization.k8s.io"
        made.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        made.append(
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": api, "kind": "Role", "name": role},
                "subjects": [subject],
            }
        )
    return made


def create_accounts(place: Cluster) -> dict[str, Account]:
    """The users, each with a new key. Call it before the chart is installed.

    The kubelet takes a minute to update a Secret that a pod has mounted.
    """
    place.apply(*account_objects())
    return {name: Account(name, _new_key(place, name)) for name in ROLES}


def _new_key(place: Cluster, account: str) -> str:
    command = [sys.executable, "-m", "finetune_cli", "keys", "create", "--for", account]
    command += ["--expires", "1d", "--namespace", NAMESPACE]
    return output(command, "finetune keys create", env=place.env).strip()


class Shell:
    """The shell of a beginner: a folder with data, and the two variables."""

    def __init__(self, terminal: Terminal, folder: Path, url: str, account: Account) -> None:
        self._terminal = terminal
        self._folder = folder
        self._account = account
        self.url = url
        bin_folder = folder / "env" / "bin"
        self._env = {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}",
            "OPENAI_API_BASE": url,
            "OPENAI_API_KEY": account.key,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def run(self, *command: str, fails: bool = False, is_live: bool = False) -> str:
        """Show a command and what it prints. Raises DemoError if it succeeds or fails wrongly.

        is_live: show each line at once; otherwise, the first and last lines at the end.
        """
        return self._run(command, shown(command), fails=fails, is_live=is_live)

    def run_line(self, line: str) -> str:
        """The same for a line of the shell."""
        return self._run(("sh", "-c", line), line, fails=False, is_live=False)

    def _run(self, command: Sequence[str], line: str, *, fails: bool, is_live: bool) -> str:
        self._terminal.say(f"    $ {line}")
        lines: list[str] = []
        with subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for text in process.stdout:
                if PROGRESS in text:
                    continue
                lines.append(COLOR.sub("", text.rstrip("\n")))
                if is_live:
                    self._terminal.say(f"      {lines[-1]}")
        for text in [] if is_live else _shortened(lines):
            self._terminal.say(f"      {text}")
        if (process.returncode != 0) != fails:
            what = "succeeded" if fails else f"failed with exit code {process.returncode}"
            raise DemoError(f"`{line}` {what}.")
        return "\n".join(lines)


def shown(command: Sequence[str]) -> str:
    """A command as people write it, with double quotes around words with spaces."""
    return " ".join(f'"{word}"' if PLAIN.fullmatch(word) else shlex.quote(word) for word in command)


def _shortened(lines: list[str]) -> list[str]:
    """The first and last lines of a long output."""
    if len(lines) <= 2 * SHOWN_LINES + 1:
        return lines
    left = len(lines) - 2 * SHOWN_LINES
    return [*lines[:SHOWN_LINES], f"... {left} more lines", *lines[-SHOWN_LINES:]]


def create_environment(folder: Path) -> None:
    """Install the client in `env`, unless it is there."""
    interpreter = folder / "env" / "bin" / "python"
    stamp = folder / "env" / PINS.name
    if stamp.exists() and stamp.read_bytes() == PINS.read_bytes():
        return
    shutil.rmtree(folder / "env", ignore_errors=True)
    uv = str(Path(sys.executable).with_name("uv"))
    make = [uv, "venv", "-q", "--python", sys.executable, str(folder / "env")]
    output(make, "uv venv", env=os.environ)
    install = [uv, "pip", "install", "-q", "-p", str(interpreter), "-r", str(PINS)]
    output(install, "uv pip install", env=os.environ)
    shutil.copyfile(PINS, stamp)


@contextmanager
def forwarded(place: Cluster) -> Iterator[str]:
    """The URL of the gateway on this machine, as long as the block runs."""
    command = place.kubectl("port-forward", SERVICE, ":http")
    with subprocess.Popen(
        command, env=place.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            if found is None:
                raise DemoError(f"kubectl port-forward failed: {process.stderr.read().strip()}")
            yield f"http://127.0.0.1:{found[1]}/v1"
        finally:
            process.terminate()


def use_client(
    terminal: Terminal, folder: Path, url: str, accounts: Mapping[str, Account], prompt: str
) -> str:
    """Run the commands in the order in which a beginner would type them; returns the model."""
    create_environment(folder)
    terminal.say(f"    export OPENAI_API_BASE={url}")
    terminal.say(f"    export OPENAI_API_KEY={accounts[USER].key[:6]}...   # of {USER}")
    user = Shell(terminal, folder, url, accounts[USER])
    create = ("openai", "api", "fine_tunes.create", "-t", "train.jsonl", "-m", "ada")
    shown = user.run(*create, "--suffix", "custom model name", is_live=True)
    job, file, model = (pattern.search(shown) for pattern in (JOB, FILE, MODEL))
    if SUCCESS not in shown or job is None or file is None or model is None:
        raise DemoError("OpenAI's client did not report a fine-tuned model.")
    user.run("openai", "api", "fine_tunes.list")
    for verb in ("get", "follow", "results"):
        user.run("openai", "api", f"fine_tunes.{verb}", "-i", job[1])
    again = ("-t", file[1], "-m", "ada", "--no_follow")
    second = re.search(
        r'"id": "(ft-[^"]+)"', user.run("openai", "api", "fine_tunes.create", *again)
    )
    if second is None:
        raise DemoError("OpenAI's client did not report a fine-tune.")
    cancelled = user.run("openai", "api", "fine_tunes.cancel", "-i", second[1])
    if '"status": "cancelled"' not in cancelled:
        raise DemoError("The fine-tune was not cancelled.")
    complete(user, model[1], prompt)
    terminal.say(f"    # {USER} is not an owner:")
    refused = user.run("openai", "api", "models.delete", "-i", model[1], fails=True)
    if ROLES[OWNER] not in refused:
        raise DemoError(f"The refusal of models.delete does not name the role {ROLES[OWNER]}.")
    terminal.say(f"    # {OWNER} is:")
    owner = Shell(terminal, folder, url, accounts[OWNER])
    if '"deleted": true' not in owner.run("openai", "api", "models.delete", "-i", model[1]):
        raise DemoError("The owner could not delete the model.")
    return model[1]


def complete(shell: Shell, model: str, prompt: str) -> None:
    """Complete a prompt with the command, in Python, and with curl if there is one."""
    shell.run(
        "openai", "api", "completions.create", "-m", model, "-p", prompt, "-t", "0", "-M", "4"
    )
    fields = f"model='{model}', prompt='Hello ->', max_tokens=4, temperature=0"
    shell.run_line(f'python -c "import openai; print(openai.Completion.create({fields}))"')
    if shutil.which("curl"):
        body = {"model": model, "prompt": "Hello ->", "max_tokens": 4, "temperature": 0}
        shell.run_line(
            "curl -sS --fail-with-body $OPENAI_API_BASE/completions "
            '-H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" '
            f"-d '{json.dumps(body)}'"
        )
