"""Builders of test objects: FineTunes, Jobs, and pods as the API server returns them."""

import json
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.outcome import EpochMetrics, Failure, Outcome, Prepared, ProgressReport, Trained
from finetune_api.tasks import RunRef
from finetune_api.wire import JsonObject
from finetune_operator.core.decide import decide
from finetune_operator.core.observed import Job, Observed, Workload
from finetune_operator.core.plan import Create, DeleteJob, Plan, stamp
from finetune_operator.core.rivals import NO_RIVALS
from finetune_operator.settings import Settings

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"


def a_settings(**changes: Any) -> Settings:
    """Settings with which the next attempt starts without a delay."""
    return Settings.model_validate(
        {
            "namespace": "team",
            "output": "s3://bucket/out",
            "prepareImage": "registry/prepare:1",
            "restartSeconds": 0,
            "models": [
                {
                    "name": "ada",
                    "uri": "s3://bucket/models/ada",
                    "pretrainingLearningRate": 0.001,
                    "contextLength": 256,
                }
            ],
            "runtimes": [
                {"name": "nvidia", "trainerImage": "registry/trainer:1", "accelerator": "nvidia"},
                {"name": "cpu", "trainerImage": "registry/trainer:1", "accelerator": "cpu"},
            ],
        }
        | changes
    )


def a_finetune(status: JsonObject | None = None, **spec: Any) -> FineTune:
    """A FineTune on two CPU nodes, as the API server returns it."""
    return FineTune.parse(
        {
            "metadata": {"name": "tone", "namespace": "team", "uid": UID, "generation": 1},
            "spec": {
                "model": "ada",
                "trainingFile": "s3://bucket/train.jsonl",
                "resources": {"nodes": 2, "gpusPerNode": 0},
                **spec,
            },
            "status": status or {},
        }
    )


def hyperparameters() -> ResolvedHyperparameters:
    return ResolvedHyperparameters(
        n_epochs=2,
        batch_size=4,
        learning_rate_multiplier=0.05,
        learning_rate=5e-5,
        prompt_loss_weight=0.1,
        warmup_ratio=0.1,
        weight_decay=0.01,
        lr_schedule="cosine",
        max_sequence_length=256,
        seed=42,
    )


def prepared(**changes: Any) -> Outcome:
    """The result of a data check. changes: of its fields."""
    outcome = Outcome(
        prepared=Prepared(
            training_examples=100,
            validation_examples=10,
            training_tokens=5000,
            steps=50,
            hyperparameters=hyperparameters(),
            dataset="s3://bucket/out/team/datasets/0123456789abcdef",
            memory_per_rank_gib=0.5,
        )
    )
    assert outcome.prepared is not None
    return outcome.replace(prepared=outcome.prepared.replace(**changes))


TRAINED_ROOT = f"s3://bucket/out/team/tone-{UID[:8]}"  # of the addresses in `trained()`


def trained() -> Outcome:
    return Outcome(
        trained=Trained(
            fine_tuned_model="ada:ft-team:tone-2026-11-21-12-00-00",
            model_uri=f"{TRAINED_ROOT}/model",
            model_manifest_sha256="0" * 64,
            result_files=[f"{TRAINED_ROOT}/results.csv"],
            trained_tokens=10000,
            steps=50,
            training_loss=1.25,
            epochs=[
                EpochMetrics(epoch=1, step=25, training_loss=2.0, learning_rate=4e-5),
                EpochMetrics(epoch=2, step=50, training_loss=1.25, learning_rate=0.0),
            ],
        )
    )


def addressed(message: str, pod_spec: JsonObject) -> str:
    """The termination message of `trained` with the addresses of the task in the pod's spec."""
    env = pod_spec["containers"][0].get("env", [])
    task = next((item["value"] for item in env if item["name"] == names.ENV_TASK), None)
    if task is None:
        return message
    found = json.loads(task)
    if "run" not in found:  # a DeletionTask
        return message
    run = RunRef.model_validate(found["run"])
    return message.replace(TRAINED_ROOT, str(run.layout.root))


def secret_keys(container: JsonObject) -> dict[str, tuple[str, bool]]:
    """The variables of a container that come from a Secret: its name, and whether each may miss."""
    found = {
        item["name"]: (item["name"], item["valueFrom"]["secretKeyRef"])
        for item in container["env"]
        if "valueFrom" in item
    }
    assert all(name == ref["key"] for name, ref in found.values())
    return {name: (ref["name"], ref.get("optional", False)) for name, ref in found.values()}


def failed(code: str, message: str = "it broke", **fields: Any) -> Outcome:
    return Outcome(failure=Failure(code=code, message=message, **fields))


def progress(**fields: Any) -> ProgressReport:
    values = {"stage": "training", "attempt": 1, "step": 10, "steps": 50, "epoch": 0.4, "epochs": 2}
    return ProgressReport.model_validate(values | {"trained_tokens": 2000} | fields)


class World:
    """A simulated control plane that carries out the plans of `decide`."""

    def __init__(self, finetune: FineTune | None = None, settings: Settings | None = None) -> None:
        self.finetune = finetune or a_finetune()
        self.settings = settings or a_settings()
        self.jobs: dict[str, JsonObject] = {}
        self.pods: dict[str, list[JsonObject]] = {}
        self.services: set[str] = set()
        self.created: list[JsonObject] = []
        self.deleted: list[str] = []
        self.status_writes = 0
        self.progress: ProgressReport | None = None
        self.workload: Workload | None = None  # the Workload of every queued Job
        self.rivals = NO_RIVALS  # the gangs of other FineTunes
        self.now = NOW
        self._made: Counter[str] = Counter()  # Jobs of each name

    def observe(self, *, is_thorough: bool = False) -> Observed:
        if self.status.state is None and not self.finetune.spec.cancel and not is_thorough:
            return Observed(self.finetune)
        jobs = [Job.parse(job, self.pods.get(name, [])) for name, job in self.jobs.items()]
        return Observed(
            finetune=self.finetune,
            jobs=tuple(replace(job, workload=self.workload) for job in jobs),
            services=frozenset(self.services),
            progress=self.progress,
            is_live=True,
            rivals=self.rivals,
        )

    def step(
        self, *, acts: bool = True, writes: bool = True, actions_at_most: int | None = None
    ) -> Plan:
        """Reconcile once. With `acts` or `writes` False, the operator dies before that part.

        With `actions_at_most`, it dies after that many actions.
        """
        observed = self.observe()
        plan = decide(observed, self.settings, self.now)
        made = {item.manifest["metadata"]["name"] for item in plan.actions_of(Create)}
        if not observed.is_live and made & self.jobs.keys():
            plan = decide(self.observe(is_thorough=True), self.settings, self.now)
        if acts:
            for action in plan.actions[:actions_at_most]:
                if isinstance(action, Create):
                    self._create(action.manifest)
                elif isinstance(action, DeleteJob):
                    self._delete(action)
                else:
                    self.services.add(action.job_name)
        if writes and plan.status.to_dict() != self.finetune.status.to_dict():
            self.status_writes += 1
            self.finetune = self.finetune.replace(status=plan.status)
        self.now += timedelta(seconds=1)
        return plan

    def carry_out(self, plan: Plan, based_on: FineTune) -> None:
        """What a second operator does with a plan from earlier: its status write is refused.

        based_on: the FineTune that the plan is for. A creation answers 409 if the object exists.
        """
        for action in plan.actions:
            if isinstance(action, DeleteJob):
                self._delete(action)
            elif isinstance(action, Create):
                if action.manifest["kind"] == "Job" and self._name(action) not in self.jobs:
                    self.add_job(action.manifest)
            elif action.job_name in self.jobs:
                self.services.add(action.job_name)
        if self.finetune is based_on:
            self.finetune = self.finetune.replace(status=plan.status)

    @staticmethod
    def _name(action: Create) -> str:
        return str(action.manifest["metadata"]["name"])

    def settle(self) -> None:
        """Reconcile until nothing changes."""
        for _ in range(10):
            before = (self.finetune, len(self.created), len(self.deleted))
            self.step()
            if before == (self.finetune, len(self.created), len(self.deleted)):
                return
        raise AssertionError("the world does not settle")

    def _create(self, manifest: JsonObject) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "Job" and name in self.jobs:
            return  # 409 for an object of this FineTune
        self.created.append(manifest)
        if manifest["kind"] == "Job":
            self.add_job(manifest)

    def add_job(self, manifest: JsonObject) -> None:
        """Add the Job of a request that has just been committed, with its pods."""
        name = manifest["metadata"]["name"]
        self._made[name] += 1
        uid = f"uid-{name}" if self._made[name] == 1 else f"uid-{name}-{self._made[name]}"
        meta = {
            **manifest["metadata"],
            "uid": uid,
            "creationTimestamp": stamp(self.now),
        }
        self.jobs[name] = {**deepcopy(manifest), "metadata": meta}
        is_suspended = manifest["spec"].get("suspend", False)
        self.pods[name] = [] if is_suspended else _pods_of(self.jobs[name])

    def _delete(self, action: DeleteJob) -> None:
        found = self.jobs.get(action.name)
        if found is None or found["metadata"]["uid"] != action.uid:
            return  # 404, or 409 for another UID
        self.remove_job(action.name)
        self.deleted.append(action.name)

    def remove_job(self, name: str) -> None:
        """Remove a Job, its pods, and its Service, regardless of who deletes it."""
        del self.jobs[name]
        self.pods.pop(name, None)
        self.services.discard(name)

    def admit(self, ending: str) -> None:
        """Admit a queued Job, so that its controller creates the pods."""
        name = self.job(ending)
        self.jobs[name]["spec"]["suspend"] = False
        self.pods[name] = _pods_of(self.jobs[name])

    def job(self, ending: str) -> str:
        return next(name for name in self.jobs if name.endswith(ending))

    def pod(self, ending: str, index: int = 0) -> JsonObject:
        return self.pods[self.job(ending)][index]

    def end_pod(
        self,
        ending: str,
        index: int,
        code: int,
        outcome: Outcome | str | None,
        *,
        has_sidecar: bool = False,
    ) -> None:
        """End the container of a pod with a termination message.

        has_sidecar: an injected container keeps running, so the pod does not end.
        """
        message = outcome.to_termination_message() if isinstance(outcome, Outcome) else outcome
        pod = self.pod(ending, index)
        ended = "Succeeded" if code == 0 else "Failed"
        others = [{"name": "injected", "state": {"running": {}}}] if has_sidecar else []
        pod["status"] = {
            "phase": "Running" if has_sidecar else ended,
            "startTime": "2026-11-21T12:00:00Z",
            "containerStatuses": [
                *others,
                {
                    "name": names.CONTAINER,
                    "state": {
                        "terminated": {
                            "exitCode": code,
                            "message": message or "",
                            "finishedAt": "2026-11-21T12:05:00Z",
                        }
                    },
                },
            ],
        }
        name = self.job(ending)
        if all(pod["status"]["phase"] == "Succeeded" for pod in self.pods[name]):
            self.set_condition(name, "Complete")

    def ready_pods(self, ending: str) -> None:
        for pod in self.pods[self.job(ending)]:
            pod["status"] = {
                "phase": "Running",
                "podIP": "10.0.0.1",
                "startTime": "2026-11-21T12:00:00Z",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": names.CONTAINER, "state": {"running": {}}}],
            }

    def fail_job(self, ending: str) -> None:
        self.set_condition(self.job(ending), "Failed", "backoff limit")

    def set_condition(self, name: str, kind: str, message: str = "") -> None:
        condition = {"type": kind, "status": "True", "message": message}
        condition["lastTransitionTime"] = stamp(self.now)
        self.jobs[name]["status"] = {"conditions": [condition]}

    def until_training(self, **estimates: Any) -> "World":
        """estimates: further fields of the result of the data check."""
        self.settle()
        self.end_pod("prepare", 0, 0, prepared(**estimates))
        self.settle()
        return self

    def until_running(self, **estimates: Any) -> "World":
        self.until_training(**estimates)
        self.ready_pods("a1")
        self.progress = progress()
        self.settle()
        return self

    def task(self) -> str:
        """The task of the newest Job's pods as JSON."""
        job = [made for made in self.created if made["kind"] == "Job"][-1]
        env = job["spec"]["template"]["spec"]["containers"][0]["env"]
        return str(env[0]["value"])

    @property
    def status(self) -> Any:
        return self.finetune.status

    def messages(self) -> list[str]:
        return [event.message for event in self.status.events]


def _pods_of(job: JsonObject) -> list[JsonObject]:
    count = job["spec"].get("completions", 1)
    return [a_pod(job["metadata"], index) for index in range(count)]


def a_pod(job_meta: JsonObject, index: int) -> JsonObject:
    return {
        "metadata": {
            "name": f"{job_meta['name']}-{index}",
            "creationTimestamp": "2026-11-21T12:00:00Z",
            "labels": {
                **job_meta["labels"],
                "batch.kubernetes.io/job-completion-index": str(index),
            },
            "ownerReferences": [{"uid": job_meta["uid"], "controller": True}],
        },
        "spec": {},
        "status": {"phase": "Pending"},
    }


__all__ = ["NOW", "UID", "World", "names"]
