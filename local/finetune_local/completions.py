"""The completion server, as a process of its own: it needs torch, and the gateway does not."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys

from finetune_api.names import ENV_LOCAL_ROOT
from finetune_gateway.settings import CompletionServer
from finetune_local.access import write_private
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
        write_private(self._secret, secrets.token_urlsafe(32))

    @property
    def server(self) -> CompletionServer:
        """What the gateway needs to use it."""
        url = f"http://{LOCALHOST}:{self._ports[0]}/v1"
        return CompletionServer(
            url=url, secret_file=self._secret, base_models=[*self._machine.local_bases]
        )

    async def run(self) -> None:
        log = self._machine.state / "logs" / "completions.log"
        while True:
            code = await run_program(
                self._command(),
                {**os.environ, ENV_LOCAL_ROOT: str(self._machine.root)},
                log,
                grace_seconds=GRACE_SECONDS,
            )
            logger.warning(
                "the completion server ended with exit code %d and starts again; see %s",
                *(code, log),
            )
            await asyncio.sleep(RESTART_SECONDS)

    def _command(self) -> list[str]:
        port, status_port = self._ports
        command = [sys.executable, "-m", "finetune_serving", "serve", "--trust-gateway"]
        command += ["--gateway-secret-file", str(self._secret), "--models-below", OUTPUT]
        command += ["--cache", str(self._machine.state / "completions"), "--host", LOCALHOST]
        command += ["--port", str(port), "--status-port", str(status_port)]
        for name, folder in self._machine.local_bases.items():
            command += ["--model", f"{name}={folder}"]
        return command if self._machine.gpus else [*command, "--cpu"]
