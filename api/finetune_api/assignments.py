"""The tasks of a FineTune's pods. The operator and `finetune run` build them in the same way."""

from finetune_api.finetune import FineTune
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.finetune_status import Resolved
from finetune_api.hyperparameters import HyperparameterRules, RequestedHyperparameters
from finetune_api.limits import DataLimits
from finetune_api.outcome import Prepared
from finetune_api.quantities import quantity_in_gib
from finetune_api.tasks import (
    Classification,
    MethodRef,
    ModelCacheRef,
    PrepareTask,
    RankResources,
    ReuseRef,
    RunRef,
    TrainTask,
)


def prepare_task(
    finetune: FineTune,
    resolved: Resolved,
    rules: HyperparameterRules,
    limits: DataLimits,
    *,
    has_model_cache: bool = False,
    searches: bool = False,
) -> PrepareTask:
    """Build the task of the prepare Job. has_model_cache: the training pods share base models.

    searches: for the same training of a former FineTune, unless the spec has `reuse: Never`.
    """
    spec = finetune.spec
    memory, storage = spec.resources.memory, spec.resources.ephemeral_storage
    requested = spec.hyperparameters.model_dump(
        include=set(RequestedHyperparameters.model_fields), exclude_none=True
    )
    files = spec.training_data
    return PrepareTask(
        run=run_of(finetune, resolved),
        base=resolved.base,
        training_file=files[0].uri,
        training_files=files if len(files) > 1 else None,
        validation_file=spec.validation_file,
        hyperparameters=RequestedHyperparameters(**requested),
        rules=rules,
        limits=limits,
        data_tolerance=spec.data_tolerance,
        method=method_of(spec),
        classification=classification_of(spec),
        workers=RankResources(
            nodes=spec.resources.nodes,
            processes_per_node=max(1, spec.resources.gpus_per_node),
            accelerator="nvidia" if spec.resources.gpus_per_node else "cpu",
            gpu_memory_gib=resolved.runtime.gpu_memory_gib,
            memory_gib=quantity_in_gib(memory) if memory else None,
            ephemeral_storage_gib=quantity_in_gib(storage) if storage else None,
            has_model_cache=has_model_cache or None,
            zero_stage=spec.deepspeed.zero_stage if spec.deepspeed else None,
            offload=spec.deepspeed.offload if spec.deepspeed else None,
        ),
        reuse=reuse_of(spec, resolved) if searches else None,
    )


def reuse_of(spec: FineTuneSpec, resolved: Resolved) -> ReuseRef | None:
    """What the name of a model that is adopted contains; None if none may be adopted."""
    if spec.reuse == "Never" or spec.dry_run:
        return None
    return ReuseRef(organization=resolved.organization, suffix=spec.suffix)


def with_prepared(resolved: Resolved, prepared: Prepared) -> Resolved:
    """Add the results of the prepare Job. Settings that the spec fixes stay."""
    stage = resolved.zero_stage if resolved.zero_stage is not None else prepared.zero_stage
    revision = prepared.base_revision or resolved.base.revision
    return resolved.replace(
        base=resolved.base.replace(revision=revision),
        hyperparameters=prepared.hyperparameters,
        dataset=prepared.dataset,
        zero_stage=stage if stage is not None else 1,
        offload=resolved.offload or prepared.offload,
        memory_per_rank_gib=prepared.memory_per_rank_gib,
        memory_per_pod_gib=prepared.memory_per_pod_gib,
        storage_per_pod_gib=prepared.storage_per_pod_gib,
        checkpoint_per_pod_gib=prepared.checkpoint_per_pod_gib,
        fallbacks=prepared.fallbacks,
        training_files=prepared.training_files,
        training_examples=prepared.training_examples,
        validation_examples=prepared.validation_examples,
        training_tokens=prepared.training_tokens,
        steps=prepared.steps,
    )


def train_task(
    finetune: FineTune,
    resolved: Resolved,
    attempt: int,
    *,
    micro_batch_share: float,
    master_host: str,
    master_port: int,
    progress_port: int,
    model_cache: ModelCacheRef | None = None,
) -> TrainTask:
    """Build the task of an attempt. `resolved` must include the results of the prepare Job."""
    spec = finetune.spec
    assert resolved.hyperparameters is not None
    assert resolved.dataset is not None
    return TrainTask(
        run=run_of(finetune, resolved),
        attempt=attempt,
        base=resolved.base,
        dataset=resolved.dataset,
        organization=resolved.organization,
        suffix=spec.suffix,
        hyperparameters=resolved.hyperparameters,
        training_examples=resolved.training_examples or 0,
        validation_examples=resolved.validation_examples or 0,
        training_file=spec.training_data[0].uri,
        validation_file=spec.validation_file,
        method=method_of(spec),
        classification=classification_of(spec),
        nodes=spec.resources.nodes,
        processes_per_node=max(1, spec.resources.gpus_per_node),
        accelerator="nvidia" if spec.resources.gpus_per_node else "cpu",
        zero_stage=resolved.zero_stage if resolved.zero_stage is not None else 1,
        offload=resolved.offload or "none",
        overlap_communication=(spec.deepspeed and spec.deepspeed.overlap_communication) or None,
        micro_batch_share=micro_batch_share,
        model_cache=model_cache,
        master_host=master_host,
        master_port=master_port,
        progress_port=progress_port,
    )


def run_of(finetune: FineTune, resolved: Resolved) -> RunRef:
    """The FineTune that a task belongs to, and the prefix of its results."""
    meta = finetune.metadata
    return RunRef(namespace=meta.namespace, name=meta.name, uid=meta.uid, output=resolved.output)


def method_of(spec: FineTuneSpec) -> MethodRef:
    """The method with all defaults. If only the rank is set, alpha is twice the rank."""
    given = spec.method.model_dump(exclude_none=True)
    if spec.method.rank is not None and spec.method.alpha is None:
        given["alpha"] = 2.0 * spec.method.rank
    return MethodRef(**given)


def classification_of(spec: FineTuneSpec) -> Classification | None:
    """The classification metrics to compute, or None."""
    requested = spec.hyperparameters
    if not requested.compute_classification_metrics:
        return None
    return Classification(
        n_classes=requested.classification_n_classes,
        positive_class=requested.classification_positive_class,
        betas=requested.classification_betas or [],
    )
