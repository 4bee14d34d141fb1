"""Resolves the names in the spec once; the start freezes the result in `status.resolved`."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import ErrorInfo, Resolved
from finetune_api.model import Model
from finetune_api.model_names import MODEL_NAME_CHARACTERS, fine_tuned_model_name
from finetune_api.tasks import BaseModelRef, PrepareTask, RuntimeRef
from finetune_api.uris import OUTPUT_BYTES
from finetune_operator import messages
from finetune_operator.keys import find_broken_key, find_broken_value, is_allowed
from finetune_operator.pod_fields import is_own_key
from finetune_operator.runtimes import Runtime
from finetune_operator.settings import Settings

SOME_TIME = datetime(2026, 11, 21, tzinfo=UTC)  # all times in names have the same length


def resolve(
    finetune: FineTune, models: tuple[Model, ...], settings: Settings
) -> Resolved | ErrorInfo:
    """The base model, the runtime, and the locations, or the error of the spec."""
    spec = finetune.spec
    base = resolve_base(finetune, models, settings)
    if isinstance(base, ErrorInfo):
        return base
    if not (spec.output or settings.output):
        return messages.OUTPUT_MISSING
    size = len(settings.output.encode())
    if not spec.output and size > OUTPUT_BYTES:  # the CRD has the same limit for spec.output
        return messages.output_too_long(size, OUTPUT_BYTES)
    runtime = settings.runtime(spec.runtime)
    if runtime is None:
        known = ", ".join(item.name for item in settings.runtimes)
        return messages.unknown_runtime(spec.runtime or "", known)
    if spec.runtime is None and spec.resources.gpus_per_node == 0:
        # Without GPUs the default is the first runtime for CPUs, if the chart has one.
        runtime = next((item for item in settings.runtimes if item.accelerator == "cpu"), runtime)
    if spec.resources.gpus_per_node and runtime.accelerator == "cpu":
        return messages.runtime_without_gpus(runtime.name)
    refused = find_refused_key(finetune, runtime, settings)
    if refused is not None:
        return refused
    organization = settings.organization or finetune.metadata.namespace
    size = len(fine_tuned_model_name(base.root, organization, spec.suffix, SOME_TIME))
    if size > MODEL_NAME_CHARACTERS:  # the training would end with a Model that cannot be created
        return messages.model_name_too_long(size, MODEL_NAME_CHARACTERS)
    return Resolved(
        base=base,
        runtime=RuntimeRef(
            name=runtime.name,
            trainer_image=runtime.trainer_image,
            prepare_image=settings.prepare_image,
            accelerator="cpu" if runtime.accelerator == "cpu" else "nvidia",
            gpu_memory_gib=runtime.gpu_memory_gib,
        ),
        organization=organization,
        output=(spec.output or settings.output).rstrip("/"),
        secret_name=(spec.storage and spec.storage.secret_name) or settings.secret_name,
        pending_deadline_seconds=_pending_deadline(finetune, settings),
        zero_stage=spec.deepspeed.zero_stage if spec.deepspeed else None,
        offload=spec.deepspeed.offload if spec.deepspeed else None,
    )


class _Added(NamedTuple):
    """What a user adds to the pods in one field, and what the chart says about it."""

    field: str
    given: Mapping[str, str] | None
    of_chart: Mapping[str, str]
    chart_value: str  # with the prefixes
    prefixes: list[str]
    find_problem: Callable[[str], str | None]  # of a value


def find_refused_key(finetune: FineTune, runtime: Runtime, settings: Settings) -> ErrorInfo | None:
    """The error of the first label or annotation, in alphabetical order, that pods cannot have."""
    spec, pods = finetune.spec, settings.pods
    labels = _Added(
        "podLabels",
        spec.pod_labels,
        pods.labels | runtime.pod_labels,
        "pods.allowedLabelPrefixes",
        pods.allowed_label_prefixes,
        find_broken_value,
    )
    annotations = _Added(
        "podAnnotations",
        spec.pod_annotations,
        pods.annotations | runtime.pod_annotations,
        "pods.allowedAnnotationPrefixes",
        pods.allowed_annotation_prefixes,
        lambda _value: None,
    )
    return next((error for added in (labels, annotations) for error in _refused(added)), None)


def _refused(added: _Added) -> Iterator[ErrorInfo]:
    field = added.field
    for key, value in sorted((added.given or {}).items()):
        if broken := find_broken_key(key):
            yield messages.key_refused(field, broken)
        elif is_own_key(key):
            yield messages.key_refused(field, f"{key!r} is set by the operator or by Kubernetes")
        elif not is_allowed(key, added.prefixes):
            yield messages.key_not_allowed(field, key, added.chart_value, ", ".join(added.prefixes))
        elif key in added.of_chart:
            yield messages.key_refused(field, f"{key!r} is set by the chart of the operator")
        elif problem := added.find_problem(value):
            yield messages.key_refused(field, f"{key!r}: {problem}")


def _pending_deadline(finetune: FineTune, settings: Settings) -> int | None:
    """The default of spec.pendingDeadlineSeconds. A queue may be days long as intended."""
    return None if finetune.spec.queue_name else settings.pending_deadline_seconds or None


def resolve_base(
    finetune: FineTune, models: tuple[Model, ...], settings: Settings
) -> BaseModelRef | ErrorInfo:
    """A catalog entry, or a Model of this namespace by its name or ID."""
    wanted = finetune.spec.model
    entry = settings.model(wanted)
    if entry is not None:
        return entry.reference
    named = [model for model in models if wanted in {model.metadata.name, model.spec.id}]
    for model in named:
        if model.metadata.deletion_timestamp is None:
            return BaseModelRef(
                name=model.spec.id,
                root=model.spec.base,
                uri=model.spec.uri,
                pretraining_learning_rate=model.spec.pretraining_learning_rate,
                context_length=model.spec.context_length,
                trained_examples=model.spec.training_examples,
            )
    if named:
        return messages.model_going(named[0].metadata.name)
    known = ", ".join(item.name for item in settings.models) or "nothing"
    return messages.unknown_model(wanted, finetune.metadata.namespace, known)


def adopted(resolved: Resolved, task: str | None) -> Resolved:
    """The values in the task of an existing prepare Job, whose status write was lost in a crash."""
    if task is None:
        return resolved
    assigned = PrepareTask.model_validate_json(task)
    return resolved.replace(base=assigned.base, output=assigned.run.output)
