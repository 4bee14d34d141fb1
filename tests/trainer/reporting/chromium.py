"""A headless Chromium, controlled through the DevTools protocol."""

import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
START_SECONDS = 60


class Tab:
    """A browser tab: it sends commands and collects events."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    async def wait(self, event: str) -> None:
        """Wait for an event; a page that is loading answers no command."""
        while not self.of(event):
            self.events.append(json.loads((await self._socket.receive()).data))

    async def evaluate(self, script: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def open(self, path: Path, *, width: int, scheme: str) -> None:
        """Load a page with this width and color scheme."""
        for domain in ("Page", "Log", "Network", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        await self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        await self.call("Page.navigate", url=path.as_uri())
        await self.wait("Page.loadEventFired")

    def of(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] == method]


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """A temporary browser with an empty profile."""
    import aiohttp

    assert PROGRAM
    process = _start(PROGRAM, folder)
    try:
        port = _port(folder, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                [tab] = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        process.wait(30)


def _start(program: str, folder: Path) -> "subprocess.Popen[bytes]":
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _port(folder: Path, process: "subprocess.Popen[bytes]") -> int:
    end = time.monotonic() + START_SECONDS
    port_file = folder / "DevToolsActivePort"
    while not (port_file.exists() and "\n" in port_file.read_text()):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return int(port_file.read_text().splitlines()[0])
