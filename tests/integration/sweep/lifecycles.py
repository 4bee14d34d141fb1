"""The lifecycles: short scripts of what a user, the pods, and a queue do. They end settled."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from finetune_api import names
from finetune_api.names import Reason
from finetune_api.outcome import Deleted, Outcome
from tests.integration.sweep.life import Life
from tests.support.objects import failed

PUBLISHING = "127.0.0.79"  # the address of a rank 0 that publishes its model
Script = Callable[[Life], None]


def _until_queued(life: Life) -> None:
    life.create(queued=True)
    life.check_data()
    life.job("-a1")


def _until_starting(life: Life) -> None:
    life.create()
    life.check_data()
    life.pods("-a1")


def _until_running(life: Life) -> None:
    life.create()
    life.check_data()
    life.train()


def _until_publishing(life: Life) -> None:
    life.create()
    life.check_data()
    life.train(address=PUBLISHING)
    life.wait_publishing()


def success(life: Life) -> None:
    _until_running(life)
    life.publish()
    life.wait("succeeded")


def retry(life: Life) -> None:
    life.create()
    life.check_data()
    pods = life.train()
    life.end(pods[1], 137)
    life.train("-a2")
    life.publish("-a2")
    life.wait("succeeded")


def out_of_memory(life: Life) -> None:
    life.create()
    life.check_data()
    pods = life.train()
    life.end(pods[0], 1, failed(Reason.OUT_OF_MEMORY, "rank 0 ran out of GPU memory"))
    life.train("-a2")
    life.publish("-a2")
    life.wait("succeeded")


def invalid_data(life: Life) -> None:
    life.create()
    life.check_data(failed(Reason.INVALID_DATA, "line 3 is no JSON"), names.EXIT_USER)
    life.wait("failed")


def _suspend_and_resume(life: Life) -> None:
    """During an attempt: its Job goes, and the next attempt succeeds."""
    life.change(suspend=True)
    life.wait_reason(Reason.SUSPENDED)
    life.wait_no_job("-a1")
    life.change(suspend=False)
    if life.is_queued:  # as if the queue had quota at once
        life.admit("-a2")
    life.train("-a2")
    life.publish("-a2")
    life.wait("succeeded")


def suspend_and_resume(life: Life) -> None:
    _until_running(life)
    _suspend_and_resume(life)


def suspend_starting(life: Life) -> None:
    _until_starting(life)
    life.wait_attempt()
    _suspend_and_resume(life)


def suspend_queued(life: Life) -> None:
    _until_queued(life)
    life.wait_attempt()
    _suspend_and_resume(life)


def suspend_publishing(life: Life) -> None:
    _until_publishing(life)
    _suspend_and_resume(life)


def suspend_checking(life: Life) -> None:
    """The data check continues, and the first attempt starts after the FineTune is resumed."""
    life.create()
    life.pods("-prepare")
    life.change(suspend=True)
    life.check_data()
    life.wait_reason(Reason.SUSPENDED)
    life.change(suspend=False)
    life.train()
    life.publish()
    life.wait("succeeded")


def suspend_at_once(life: Life) -> None:
    """The data is checked while the FineTune is suspended."""
    life.create(suspend=True)
    life.check_data()
    life.wait_reason(Reason.SUSPENDED)
    life.change(suspend=False)
    life.train()
    life.publish()
    life.wait("succeeded")


def cancel_at_once(life: Life) -> None:
    """Perhaps before the operator has seen the FineTune, or while it creates the first Job."""
    life.create()
    life.cancel()


def cancel_checking(life: Life) -> None:
    life.create()
    life.pods("-prepare")
    life.cancel()


def cancel_queued(life: Life) -> None:
    _until_queued(life)
    life.wait_attempt()
    life.cancel()


def cancel_starting(life: Life) -> None:
    _until_starting(life)
    life.wait_attempt()
    life.cancel()


def cancel_running(life: Life) -> None:
    _until_running(life)
    life.cancel()


def cancel_publishing(life: Life) -> None:
    _until_publishing(life)
    life.cancel()


def cancel_suspended(life: Life) -> None:
    _until_running(life)
    life.change(suspend=True)
    life.wait_reason(Reason.SUSPENDED)
    life.cancel()


def deadline_pending(life: Life) -> None:
    _until_starting(life)
    life.wait_attempt()
    life.change(pendingDeadlineSeconds=1)
    life.wait("failed")


def deadline_active(life: Life) -> None:
    _until_running(life)
    life.change(activeDeadlineSeconds=1)
    life.wait("failed")


def delete_checking(life: Life) -> None:
    life.create()
    life.pods("-prepare")
    life.delete()


def delete_queued(life: Life) -> None:
    _until_queued(life)
    life.delete()


def delete_starting(life: Life) -> None:
    _until_starting(life)
    life.delete()


def delete_running(life: Life) -> None:
    _until_running(life)
    life.delete()


def delete_publishing(life: Life) -> None:
    _until_publishing(life)
    life.delete()


def delete_succeeded(life: Life) -> None:
    success(life)
    life.first = len(life.proxy.writes) + 1  # the others are those of the success
    life.delete()


def model_deletion(life: Life) -> None:
    """The files of the model go with the Model. The FineTune stays."""
    success(life)
    (model,) = (item["metadata"]["name"] for item in life.api.list("models"))
    life.first = len(life.proxy.writes) + 1
    with life.unseen():
        life.api.patch("models", model, {"spec": {"deletionPolicy": "Delete"}})
    life.until(lambda: _finalizers(life, model), "the finalizer")
    with life.unseen():
        life.api.delete("models", model)
    (pod,) = life.pods("-delete")
    life.end(pod, 0, Outcome(deleted=Deleted(files=3)))
    life.until(lambda: life.api.get("models", model) is None, "the end of the Model")
    life.wait_no_job("-delete")


def lost_check(life: Life) -> None:
    """The result of the data check goes with its pod, and the check runs again."""
    life.create()
    life.pods("-prepare")
    with life.unseen(always=True):
        life.check_data()
        life.lose_pods("-prepare")
    life.check_data()
    life.train()
    life.publish()
    life.wait("succeeded")


def lost_result(life: Life) -> None:
    """The result of the training goes with its pods, and the next attempt finds the model."""
    _until_running(life)
    with life.unseen(always=True):
        life.publish()
        life.lose_pods("-a1")
    life.train("-a2")
    life.publish("-a2")
    life.wait("succeeded")


def lost_job(life: Life) -> None:
    """The Job that published the model is deleted, and a CPU pod finds the model."""
    _until_running(life)
    with life.unseen(always=True):
        life.publish()
        life.delete_job("-a1")
    (pod,) = life.pods("-lookup")
    life.end(pod, 0, life.published())
    life.wait("succeeded")


def deleted_job(life: Life) -> None:
    """A user deletes the Job during the training, and a CPU pod finds no model."""
    _until_running(life)
    life.delete_job("-a1")
    (pod,) = life.pods("-lookup")
    life.end(pod, names.EXIT_USER, failed(Reason.DATA_NOT_FOUND, "no model"))
    life.wait("failed")


def _finalizers(life: Life, model: str) -> list[str]:
    found = life.api.get("models", model)
    finalizers: list[str] = found["metadata"].get("finalizers", []) if found else []
    return finalizers


def preemption(life: Life) -> None:
    """A queue admits the Job, takes the quota back, and admits the next attempt."""
    life.create(queued=True, maxRestarts=0)
    life.check_data()
    life.admit("-a1")
    life.train()
    life.preempt("-a1")
    life.admit("-a2")
    life.train("-a2")
    life.publish("-a2")
    life.wait("succeeded")


def serving(life: Life) -> None:
    """A Model is served, sleeps, is woken, and gets another runtime and a second pod."""
    life.create_model()
    life.serve({"minReplicas": 0, "idleSeconds": 60})
    life.wait_serving("loading", 1)
    life.renew(datetime.now(UTC) - timedelta(hours=1))
    life.wait_serving("asleep", 0)
    life.renew(datetime.now(UTC))
    life.wait_serving("ready", 1)
    life.serve({"replicas": 2, "minReplicas": 2, "runtime": "other"})
    life.wait_serving("ready", 2, "other")


def serving_stopped(life: Life) -> None:
    life.create_model()
    life.serve({})
    life.wait_serving("ready", 1)
    life.serve(None)
    life.until(lambda: life.serving() == {}, "the end of the server")


SERVING = {
    "fetchImage": "registry/trainer:1",
    "runtimes": [
        {"name": "small", "image": "registry/trainer:1", "startSeconds": 10},
        {"name": "other", "image": "registry/trainer:2", "startSeconds": 10},
    ],
}
SERVING_LIFECYCLES = ("serving", "serving-stopped")

LIFECYCLES: dict[str, Script] = {
    script.__name__.replace("_", "-"): script
    for script in (
        success,
        retry,
        out_of_memory,
        invalid_data,
        suspend_and_resume,
        suspend_at_once,
        suspend_checking,
        suspend_queued,
        suspend_starting,
        suspend_publishing,
        cancel_at_once,
        cancel_checking,
        cancel_queued,
        cancel_starting,
        cancel_running,
        cancel_publishing,
        cancel_suspended,
        deadline_pending,
        deadline_active,
        delete_checking,
        delete_queued,
        delete_starting,
        delete_running,
        delete_publishing,
        delete_succeeded,
        model_deletion,
        preemption,
        lost_check,
        lost_result,
        lost_job,
        deleted_job,
        serving,
        serving_stopped,
    )
}
