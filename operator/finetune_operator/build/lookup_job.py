"""The lookup Job: one CPU pod that finds the model of a FineTune whose Job was deleted."""

from typing import Any

from finetune_api import names
from finetune_api.assignments import run_of
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.tasks import LookupTask
from finetune_operator.build.credentials import credentials
from finetune_operator.build.identity import child_metadata, labels, lookup_name
from finetune_operator.build.pod_metadata import pod_metadata
from finetune_operator.build.pod_resources import small_pod_resources
from finetune_operator.build.pods import deadline, pod_spec, retry_policy, scheduling
from finetune_operator.build.queueing import put_in_queue, queue_on_cpus
from finetune_operator.build.scratch_space import SMALL_GIB
from finetune_operator.settings import Settings

# A prepare image of an earlier version has no lookup. The text becomes the termination message.
PROGRAM = f"""\
import sys
from importlib.util import find_spec
from runpy import run_module

if find_spec("finetune_data.lookup"):
    run_module("finetune_data.lookup", run_name="__main__", alter_sys=True)
else:
    print("the prepare image is of an earlier version and cannot look up published models")
    sys.exit({names.EXIT_USER})
"""
RETRIES = 3  # after a crash or without an answer of S3


def build_lookup_job(finetune: FineTune, resolved: Resolved, settings: Settings) -> dict[str, Any]:
    """Build the Job. Its image is that of the chart, because that of the status may be older."""
    task = LookupTask(run=run_of(finetune, resolved))
    container = {
        "image": settings.prepare_image,
        "command": ["python", "-c", PROGRAM],
        "env": [{"name": names.ENV_TASK, "value": task.to_json()}],
        "resources": small_pod_resources(
            *(finetune, settings, settings.prepare_resources), SMALL_GIB
        ),
    }
    source = credentials(finetune, resolved.secret_name)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(finetune, lookup_name(finetune), names.COMPONENT_LOOKUP),
        "spec": {
            **deadline(settings),
            "backoffLimit": RETRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": retry_policy(),
            "template": {
                "metadata": pod_metadata(
                    settings, labels(finetune, names.COMPONENT_LOOKUP), finetune=finetune
                ),
                "spec": {**pod_spec(settings, source, container, []), **scheduling(finetune)},
            },
        },
    }
    return put_in_queue(job, queue_on_cpus(finetune.spec.queue_name, settings))
