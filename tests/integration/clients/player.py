"""Writes the status, the Model, and the files of FineTunes, as the operator and its pods do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import boto3

from finetune_api.finetune import FineTune
from finetune_api.layout import RunLayout
from finetune_api.model_names import fine_tuned_model_name, resource_name
from finetune_api.wire import JsonObject
from tests.security.s3 import REGION, Tenant
from tests.support.kubectl import Kubectl

OUTPUT = "s3://acme/out"
RESULTS = (
    b"step,elapsed_tokens,elapsed_examples,training_loss,training_sequence_accuracy,"
    b"training_token_accuracy\n1,128,4,2.5,0.0,0.25\n2,256,8,1.5,0.5,0.75\n"
)
EPOCH = "Completed epoch 1/1. Training loss 1.500"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Player:
    """Plays FineTunes step by step. Between the steps, a test can do something else."""

    def __init__(self, team: Kubectl, store: Tenant) -> None:
        self.team = team
        self.s3 = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            region_name=REGION,
            aws_access_key_id=store.name,
            aws_secret_access_key=store.secret,
        )
        self._threads: list[threading.Thread] = []
        self._is_over = threading.Event()
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(30)
        for failed in self._errors:
            raise failed from error

    def in_background(self, plays: Callable[[str], None], *, seen: int = 0) -> None:
        """Play the first FineTune that appears in addition to `seen` ones, in another thread."""

        def run() -> None:
            try:
                while not self._is_over.is_set():
                    listed = self.team.list("finetunes")
                    if len(listed) > seen:
                        newest = max(listed, key=lambda item: item["metadata"]["creationTimestamp"])
                        plays(newest["metadata"]["name"])
                        return
                    time.sleep(0.2)
            except BaseException as error:  # reported by the thread of the test
                self._errors.append(error)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    # --- steps ------------------------------------------------------------------------------------

    def accept(self, name: str) -> None:
        self._write(name, f"Created fine-tune: {name}", state="pending", stage="validating",
                    reason="Validating", message="the data is being checked")  # fmt: skip

    def start(self, name: str) -> None:
        self._write(name, "Fine-tune started", state="running", stage="training",
                    reason="Training", message="step 1 of 2", startedAt=now())  # fmt: skip

    def epoch(self, name: str) -> None:
        layout = self._layout(name)
        self.s3.put_object(Bucket=layout.results.bucket, Key=layout.results.key, Body=RESULTS)
        self._write(name, EPOCH)

    def publish(self, name: str) -> str:
        """Succeed, with a Model. Returns its id."""
        obj = self.team.get("finetune", name)
        finetune, layout = FineTune.parse(obj), self._layout(name)
        model = fine_tuned_model_name(
            finetune.spec.model.split(":")[0], "acme", finetune.spec.suffix, datetime.now(UTC)
        )
        self.team.apply(
            {
                "apiVersion": "finetune.dev/v1alpha1",
                "kind": "Model",
                "metadata": {"name": resource_name(model)},
                "spec": {
                    "id": model,
                    "uri": str(layout.model),
                    "base": finetune.spec.model.split(":")[0],
                    "pretrainingLearningRate": 0.001,
                    "contextLength": 256,
                    "fineTune": {"name": name, "uid": finetune.metadata.uid},
                },
            }
        )
        self._write(
            name,
            f"Uploaded model: {model}",
            "Fine-tune succeeded",
            state="succeeded",
            stage=None,
            reason="Succeeded",
            message=f"the fine-tuned model is {model}",
            fineTunedModel=model,
            resultFiles=[str(layout.results)],
            finishedAt=now(),
        )
        return model

    def cancel(self, name: str) -> None:
        self._write(name, "Fine-tune cancelled", state="cancelled", stage=None,
                    reason="Cancelled", message="cancelled", finishedAt=now())  # fmt: skip

    def whole_life(self, name: str) -> None:
        self.accept(name)
        self.start(name)
        self.epoch(name)
        self.publish(name)

    def obey(self, name: str) -> None:
        """Accept and start, and cancel once a user asks for it."""
        self.accept(name)
        self.start(name)
        while not self._is_over.is_set():
            if self.team.get("finetune", name)["spec"].get("cancel"):
                self.cancel(name)
                return
            time.sleep(0.2)

    # --- parts ------------------------------------------------------------------------------------

    def _layout(self, name: str) -> RunLayout:
        uid = self.team.get("finetune", name)["metadata"]["uid"]
        return RunLayout.of(OUTPUT, self.team.namespace, name, uid)

    def _write(self, name: str, *messages: str, **status: Any) -> None:
        """Change the status, and add an Event for each message."""
        before: JsonObject = self.team.status(name)
        events = list(before.get("events", []))
        for message in messages:
            number = len(events) + 1
            events.append(
                {
                    "at": now(),
                    "level": "info",
                    "reason": f"Played{number}",
                    "message": message,
                    "seq": number,
                }
            )
        self.team.patch_status("finetune", name, {**status, "events": events})
