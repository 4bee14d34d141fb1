"""The completion server, as a process of its own: it needs torch, and the gateway does not."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from pathlib import Path

from finetune_api.names import ENV_LOCAL_ROOT
from finetune_gateway.settings import CompletionServer
from finetune_local.containers import run_program
from finetune_local.jobs import free_ports
from finetune_local.machine import OUTPUT, Machine
from finetune_local.pods import LOCALHOST

RESTART_SECONDS = 5.0
GRACE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Completions:
    """Runs the server until it is cancelled, and starts it again if it ends."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._ports = free_ports()
        self._secret = machine.state / "completions-secret"
        descriptor = os.open(self._secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))

    @property
    def server(self) -> CompletionServer:
        """What the gateway needs to use it."""
        url = f"http://{LOCALHOST}:{self._ports[0]}/v1"
        return CompletionServer(url=url, secret_file=self._secret)

    async def run(self) -> None:
        while True:
            code = await run_program(
                self._command(),
                {**os.environ, ENV_LOCAL_ROOT: str(self._machine.root)},
                self._machine.state / "logs" / "completions.log",
                grace_seconds=GRACE_SECONDS,
            )
            logger.warning(
                "the completion server ended with exit code %d and starts again; see %s",
                *(code, self._machine.state / "logs" / "completions.log"),
            )
            await asyncio.sleep(RESTART_SECONDS)

    def _command(self) -> list[str]:
        port, status_port = self._ports
        cache: Path = self._machine.state / "completions"
        command = [sys.executable, "-m", "finetune_serving", "serve", "--trust-gateway"]
        command += ["--gateway-secret-file", str(self._secret), "--models-below", OUTPUT]
        command += ["--cache", str(cache), "--host", LOCALHOST]
        command += ["--port", str(port), "--status-port", str(status_port)]
        return command if self._machine.gpus else [*command, "--cpu"]
