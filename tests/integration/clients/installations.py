"""OpenAI's own clients, each version in an environment of its own.

The old versions have no known fixed dependencies that the project shares, so that they are no part
of its environment. The versions are pinned in the folder `versions`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path

PINS = Path(__file__).resolve().parent / "versions"
DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo"  # has the version of the demo
UV = Path(sys.executable).with_name("uv")
SECONDS = 90


class Clients:
    """Installs each client when a test first uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def python(self, version: str) -> Path:
        """The interpreter of an environment with this version of `openai`."""
        environment = self._folder / f"openai-{version}"
        interpreter = environment / "bin" / "python"
        if not interpreter.exists():
            name = f"openai-{version}.txt"
            _run(str(UV), "venv", "-q", "--python", sys.executable, str(environment))
            listed = next(folder / name for folder in (PINS, DEMO) if (folder / name).exists())
            _run(str(UV), "pip", "install", "-q", "-p", str(interpreter), "-r", str(listed))
        return interpreter

    @cached_property
    def node_modules(self) -> Path:
        """A folder with the versions of `openai` for Node.js, named openai-3, openai-6, ..."""
        for name in ("package.json", "package-lock.json"):
            (self._folder / name).write_bytes((PINS / name).read_bytes())
        _run("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=self._folder)
        return self._folder / "node_modules"

    def openai(
        self,
        version: str,
        url: str,
        key: str,
        *arguments: str,
        stdin: str = "",
        cwd: Path,
        seconds: float = SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command `openai` of a version, with the variables of that version."""
        name = "OPENAI_API_BASE" if version.startswith("0.") else "OPENAI_BASE_URL"
        return self.start(
            [str(self.python(version).with_name("openai")), *arguments],
            {name: url, "OPENAI_API_KEY": key},
            stdin=stdin,
            cwd=cwd,
            seconds=seconds,
        )

    def node(self, script: str, url: str, key: str) -> subprocess.CompletedProcess[str]:
        """Run a script of Node.js; `require("openai-3")` and the others find their version."""
        path = self.node_modules.parent / "script.js"
        path.write_text(script)
        return self.start(
            ["node", str(path)], {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": key}, cwd=path.parent
        )

    def start(
        self,
        command: list[str],
        variables: dict[str, str],
        *,
        stdin: str = "",
        cwd: Path,
        seconds: float = SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OPENAI_") and name not in {"PYTHONPATH", "VIRTUAL_ENV"}
        }
        return subprocess.run(
            command,
            env={**kept, "TZ": "UTC", "NO_PROXY": "127.0.0.1", **variables},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
