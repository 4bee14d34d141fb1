"""From names in the spec to what they mean today; frozen into `status.resolved` at the start."""

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import ErrorInfo, Resolved
from finetune_api.model import Model
from finetune_api.names import Reason
from finetune_api.tasks import BaseModelRef, PrepareTask, RuntimeRef
from finetune_operator.settings import Settings


def resolve(
    finetune: FineTune, models: tuple[Model, ...], settings: Settings
) -> Resolved | ErrorInfo:
    """The base model, the runtime and the places, or the one sentence that says what is wrong."""
    spec = finetune.spec
    base = resolve_base(finetune, models, settings)
    if isinstance(base, ErrorInfo):
        return base
    if not (spec.output or settings.output):
        return _invalid("output", "spec.output is needed: the chart has no default output prefix")
    runtime = settings.runtime(spec.runtime)
    if runtime is None:
        known = ", ".join(item.name for item in settings.runtimes)
        return ErrorInfo(
            code=Reason.UNKNOWN_RUNTIME,
            param="runtime",
            message=f"runtime {spec.runtime!r} is unknown: the chart has {known}",
        )
    if spec.runtime is None and spec.resources.gpus_per_node == 0:
        # Without a GPU the first runtime that is meant for none, where the chart has one.
        runtime = next((item for item in settings.runtimes if item.accelerator == "cpu"), runtime)
    if spec.resources.gpus_per_node and runtime.accelerator == "cpu":
        return _invalid(
            "resources.gpusPerNode",
            f"runtime {runtime.name!r} has no GPUs: set resources.gpusPerNode to 0, "
            "or choose another runtime",
        )
    return Resolved(
        base=base,
        runtime=RuntimeRef(
            name=runtime.name,
            trainer_image=runtime.trainer_image,
            prepare_image=settings.prepare_image,
            accelerator="cpu" if runtime.accelerator == "cpu" else "nvidia",
            gpu_memory_gib=runtime.gpu_memory_gib,
        ),
        organization=settings.organization or finetune.metadata.namespace,
        output=(spec.output or settings.output).rstrip("/"),
        secret_name=(spec.storage and spec.storage.secret_name) or settings.secret_name,
        zero_stage=spec.deepspeed.zero_stage if spec.deepspeed else None,
        offload=spec.deepspeed.offload if spec.deepspeed else None,
    )


def resolve_base(
    finetune: FineTune, models: tuple[Model, ...], settings: Settings
) -> BaseModelRef | ErrorInfo:
    """A catalog entry, or a Model of this namespace by its name or its id."""
    wanted = finetune.spec.model
    entry = settings.model(wanted)
    if entry is not None:
        return entry.reference
    for model in models:
        if wanted in {model.metadata.name, model.spec.id}:
            return BaseModelRef(
                name=model.spec.id,
                root=model.spec.base,
                uri=model.spec.uri,
                pretraining_learning_rate=model.spec.pretraining_learning_rate,
                context_length=model.spec.context_length,
                trained_examples=model.spec.training_examples,
            )
    known = ", ".join(item.name for item in settings.models) or "nothing"
    return ErrorInfo(
        code=Reason.UNKNOWN_MODEL,
        param="model",
        message=f"model {wanted!r} is unknown: the catalog has {known}, and no Model in "
        f"namespace {finetune.metadata.namespace!r} has that name or id",
        hint="kubectl get models shows the fine-tuned models; the chart value `models` is the "
        "catalog",
    )


def adopted(resolved: Resolved, task: str | None) -> Resolved:
    """What a prepare Job was really told, when the operator died before it wrote the status."""
    if task is None:
        return resolved
    told = PrepareTask.model_validate_json(task)
    return resolved.replace(base=told.base, output=told.run.output)


def _invalid(param: str, message: str) -> ErrorInfo:
    return ErrorInfo(code=Reason.INVALID_SPEC, param=param, message=message)
