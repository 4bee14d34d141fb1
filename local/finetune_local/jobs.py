"""Runs the Jobs: the Job controller and the kubelet of this machine.

One training runs at a time, and next to it one Job without GPUs, such as a check of data: an
invalid file is reported while another FineTune trains.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import tempfile
from pathlib import Path

from finetune_api import names
from finetune_api.names import Stage
from finetune_api.wire import JsonObject
from finetune_local import pods
from finetune_local.containers import command_of, end_message, environment_of, run_program
from finetune_local.objects import Objects, timestamp
from finetune_local.pods import Pod
from finetune_operator.core.observed import Job
from finetune_operator.kube.progress import ProgressReader

WORK = ".pod-"  # begins the names of the folders of pods
POLL_SECONDS = 1.0  # of the progress of a training
RETRY_SECONDS = 5.0  # before another pod of a Job that has retries
GRACE_SECONDS = 60.0  # for a checkpoint after SIGTERM; the Job may say more

logger = logging.getLogger(__name__)


class Jobs:
    """The Jobs of the objects, each of which has one pod at a time."""

    def __init__(self, objects: Objects, root: Path, logs: Path) -> None:
        """root: the folder of the local bucket. logs: a folder for the output of pods."""
        self._objects = objects
        self._root = root
        self._logs = logs
        self._pods: dict[str, list[Pod]] = {}  # by the UID of the Job
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._training, self._checking = asyncio.Lock(), asyncio.Lock()
        logs.mkdir(parents=True, exist_ok=True)

    def restore(self) -> None:
        """Run the Jobs of a former process that have not ended, except for trainings.

        The operator starts another attempt of those, which continues from the last checkpoint.
        """
        for rest in self._root.glob(f"{WORK}*"):  # of a process that was killed
            shutil.rmtree(rest, ignore_errors=True)
        for job in self._objects.list("jobs"):
            if _has_ended(job):
                continue
            if job["metadata"]["labels"].get(names.LABEL_COMPONENT) == names.COMPONENT_TRAIN:
                pod = self._add_pod(job)
                pod.phase, pod.is_lost, pod.started_at = "Failed", True, pod.created_at
                self._end(job, "Failed", "BackoffLimitExceeded")
            else:
                self.start(job)

    def start(self, job: JsonObject) -> None:
        """Run a Job."""
        uid = job["metadata"]["uid"]
        self._tasks[uid] = asyncio.create_task(self._run(job))

    def parsed(self, job: JsonObject) -> Job:
        """The Job with its pods, as the operator sees them."""
        found = self._pods.get(job["metadata"]["uid"], [])
        return Job.parse(job, [pod.to_object() for pod in found])

    def pod(self, uid: str) -> Pod | None:
        """The newest pod of a Job."""
        return next(reversed(self._pods.get(uid, [])), None)

    def delete(self, job: JsonObject) -> None:
        """End the processes of a Job, and remove it then."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        if "deletionTimestamp" in job["metadata"]:
            return
        metadata = {**job["metadata"], "deletionTimestamp": timestamp()}
        self._objects.put("jobs", {**job, "metadata": metadata})
        task = self._tasks.get(uid)
        if task is not None:
            task.cancel()

        def remove(_: object) -> None:
            self._pods.pop(uid, None)
            self._tasks.pop(uid, None)
            self._objects.remove("jobs", name)

        if task is None or task.done():
            remove(None)
        else:
            task.add_done_callback(remove)

    async def close(self) -> None:
        """Let the processes save their checkpoints and end. The Jobs stay."""
        tasks = [task for task in self._tasks.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: JsonObject) -> None:
        component = job["metadata"]["labels"][names.LABEL_COMPONENT]
        turn = self._training if component == names.COMPONENT_TRAIN else self._checking
        pod = self._add_pod(job)
        async with turn:
            for left in reversed(range(job["spec"].get("backoffLimit", 0) + 1)):
                try:
                    code = await self._run_pod(pod)
                except OSError as error:  # no process can be started, or no file written
                    logger.error("%s cannot run: %s", pod.name, error)
                    code = names.EXIT_CRASH
                    pod.phase = "Failed"
                if code == 0:
                    self._end(job, "Complete")
                    return
                if code == names.EXIT_USER or not left:
                    self._end(job, "Failed", "BackoffLimitExceeded")
                    return
                await asyncio.sleep(RETRY_SECONDS)
                pod = self._add_pod(job)

    async def _run_pod(self, pod: Pod) -> int:
        """Run the containers one after the other; returns the exit code of the last one."""
        pod.started_at, pod.phase = timestamp(), "Running"
        self._objects.notify()
        log = self._logs / f"{pod.name}.log"
        folder = Path(tempfile.mkdtemp(prefix=WORK, dir=self._root))
        ports = free_ports()
        watching = asyncio.create_task(self._watch(pod, ports[0]))
        code = 0
        try:
            for container in pod.containers:
                name = container["name"]
                pod.states[name] = pods.running(timestamp())
                code = await run_program(
                    command_of(container, pod.component, folder),
                    environment_of(container, folder, self._root, ports),
                    log,
                    grace_seconds=pod.spec.get("terminationGracePeriodSeconds", GRACE_SECONDS),
                )
                message = end_message(folder, name, log, code)
                pod.states[name] = pods.terminated(code, message, timestamp())
                if code:
                    break
            pod.phase = "Failed" if code else "Succeeded"
        finally:
            watching.cancel()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return code

    async def _watch(self, pod: Pod, port: int) -> None:
        """Read the progress of a training until it is cancelled."""
        if pod.component != names.COMPONENT_TRAIN:
            return
        async with ProgressReader(port) as reader:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                report = await reader.read(self.parsed(pod.job))
                if report is not None and report != pod.report:
                    pod.report = report
                    pod.is_ready = pod.is_ready or report.stage != Stage.STARTING
                    self._objects.notify()

    def _add_pod(self, job: JsonObject) -> Pod:
        found = self._pods.setdefault(job["metadata"]["uid"], [])
        pod = Pod(job, len(found) + 1, timestamp())
        found.append(pod)
        self._objects.notify()
        return pod

    def _end(self, job: JsonObject, condition: str, reason: str = "") -> None:
        """Write the end of a Job that still exists."""
        found = self._objects.get("jobs", job["metadata"]["name"])
        if found is None or found["metadata"]["uid"] != job["metadata"]["uid"]:
            return
        ended = {"type": condition, "status": "True", "lastTransitionTime": timestamp()}
        if reason:
            ended["reason"] = reason
        status = {"startTime": job["metadata"]["creationTimestamp"], "conditions": [ended]}
        self._objects.put("jobs", {**found, "status": status})


def _has_ended(job: JsonObject) -> bool:
    return bool(job.get("status", {}).get("conditions"))


def free_ports() -> tuple[int, int]:
    """Two free ports of this machine."""
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.bind((pods.LOCALHOST, 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])
