"""`finetune serve` as a process, and a client of the newest version."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import openai

from tests.cli.entry import PROGRAM
from tests.support.local_files import write_models, write_rows

START_SECONDS, END_SECONDS, WAIT_SECONDS = 120, 60, 120
VARIABLE = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)

T = TypeVar("T")


class Server:
    """The command in a folder with a base model `ada` and a file of training data."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        rows = [
            {"prompt": f"the fox {n} ->", "completion": " yes" if n % 2 else " no"}
            for n in range(40)
        ]
        write_rows(folder / "train.jsonl", rows)
        write_models(folder, base, "ada")
        self._process: subprocess.Popen[bytes] | None = None
        self.variables: dict[str, str] = {}

    @property
    def client(self) -> openai.OpenAI:
        url, key = self.variables["OPENAI_BASE_URL"], self.variables["OPENAI_API_KEY"]
        return openai.OpenAI(base_url=url, api_key=key, max_retries=0)

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        command = [*PROGRAM, "serve", "--models", "models.yaml", "--cpu", "-o", "out", *options]
        with (
            (self.folder / "out.txt").open("wb") as out,
            (self.folder / "err.txt").open("ab") as err,
        ):
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start it on a free port, and read what it prints to paste."""
        self._process = self.launch("--port", "0")
        self.until(lambda: len(VARIABLE.findall(self.output)) == 3, START_SECONDS)
        self.variables = dict(VARIABLE.findall(self.output))

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it with a signal; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(END_SECONDS)
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.stop(signal.SIGTERM)

    @property
    def output(self) -> str:
        return (self.folder / "out.txt").read_text()

    @property
    def messages(self) -> str:
        return (self.folder / "err.txt").read_text()

    def upload(self, lines: str | None = None) -> str:
        """The id of an uploaded file of training data."""
        data = lines or (self.folder / "train.jsonl").read_text()
        made = self.client.files.create(file=("train.jsonl", data.encode()), purpose="fine-tune")
        return made.id

    def create(self, *, epochs: int = 1, **fields: Any) -> str:
        """The id of a new job."""
        job = self.client.fine_tuning.jobs.create(
            model="ada",
            training_file=fields.pop("training_file", None) or self.upload(),
            hyperparameters={"n_epochs": epochs, "batch_size": 1},
            **fields,
        )
        return job.id

    def await_status(self, job: str, *statuses: str) -> Any:
        """The job once it has one of the statuses."""

        def found() -> Any:
            job_now = self.client.fine_tuning.jobs.retrieve(job)
            return job_now if job_now.status in statuses else None

        return self.until(found)

    def events(self, job: str) -> list[str]:
        """The messages, oldest first, from the older of the two APIs, which has no metrics."""
        url, key = self.variables["OPENAI_BASE_URL"], self.variables["OPENAI_API_KEY"]
        request = urllib.request.Request(
            f"{url}/fine-tunes/{job}/events", headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request) as response:
            return [event["message"] for event in json.load(response)["data"]]

    def until(self, condition: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert self._process is not None
            assert self._process.poll() is None, self.messages
            assert time.monotonic() < end, self.messages
            time.sleep(0.1)
        return found
