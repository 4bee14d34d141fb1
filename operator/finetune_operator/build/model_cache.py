"""The volume of the training pods in which base models outlive a pod."""

from typing import Any

from finetune_api.quantities import quantity_bytes
from finetune_api.tasks import ModelCacheRef
from finetune_operator.pod_fields import CACHE_PATH, MODEL_CACHE
from finetune_operator.runtimes import ModelCache, Runtime

# By default, the kubelet evicts pods when less than 15 % of the disk with the images is free. A
# cache that filled the disk of a node would end the trainings there, again and again.
FREE_SHARE = 0.2


def cache_ref(runtime: Runtime | None) -> ModelCacheRef | None:
    """The cache as the trainer sees it; None if the runtime has none."""
    if runtime is None or runtime.model_cache is None:
        return None
    cache = runtime.model_cache
    limit = cache.max_size if cache.empty_dir is None else cache.empty_dir.size_limit
    return ModelCacheRef(
        path=CACHE_PATH,
        max_bytes=quantity_bytes(limit) if limit else None,
        free_share=FREE_SHARE if cache.host_path is not None and limit is None else 0,
    )


def has_shared_cache(runtime: Runtime | None) -> bool:
    """Whether base models do not count in the ephemeral storage of the pods."""
    return runtime is not None and runtime.model_cache is not None and runtime.model_cache.is_shared


def cache_volumes(runtime: Runtime | None) -> list[dict[str, Any]]:
    """The pod's volumes for the cache: one or none."""
    if runtime is None or runtime.model_cache is None:
        return []
    return [{"name": MODEL_CACHE, **_source(runtime.model_cache)}]


def cache_mounts(runtime: Runtime | None) -> list[dict[str, Any]]:
    """The container's mounts for the cache: one or none."""
    return [{"name": volume["name"], "mountPath": CACHE_PATH} for volume in cache_volumes(runtime)]


def _source(cache: ModelCache) -> dict[str, Any]:
    if cache.persistent_volume_claim is not None:
        return {"persistentVolumeClaim": cache.persistent_volume_claim.to_dict()}
    if cache.host_path is not None:
        # The kubelet creates a missing folder for root only. The trainer then reports that it
        # cannot write to the folder, and trains without it; a pod that never starts reports less.
        return {"hostPath": {"path": cache.host_path.path, "type": "DirectoryOrCreate"}}
    assert cache.empty_dir is not None
    return {"emptyDir": {key: value for key, value in cache.empty_dir.to_dict().items() if value}}
