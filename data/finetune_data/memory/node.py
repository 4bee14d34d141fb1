"""Estimates the host memory and the disk of one node, which is one pod with a rank per GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from finetune_api.tasks import MethodRef, Offload, RankResources
from finetune_data.memory.shape import ModelShape
from finetune_data.memory.states import (
    largest_tensor,
    pinned_bytes,
    trained_parameters,
    weight_bytes,
)

GIB = 2**30
# The launcher has 20 MiB after its imports; its downloads have buffers.
LAUNCHER_BYTES = 0.25 * GIB
# A rank has 330 MiB after its imports and 450 MiB with peft (anonymous memory). The rest is for its
# part of a dataset and, on GPUs, for CUDA's context and NCCL's buffers, which are not measured yet.
RANK_BYTES = {"nvidia": 4 * GIB, "cpu": 1.5 * GIB}
LEAST_RANK_BYTES = 0.3 * GIB  # the imported libraries only
# Per parameter of a layer's experts: 16.2 were measured for the larger one of their two tensors,
# which has two thirds of them.
MERGED_EXPERT_BYTES = 11
CHECKPOINT_BYTES = 12  # per trained parameter: fp32 weights and two moments
DATASET_BYTES = 1 * GIB  # a larger dataset adds to the disk
DISK_BYTES = DATASET_BYTES + 1 * GIB  # with logs and reports


@dataclass(frozen=True)
class Node:
    """The needs of one node, in bytes."""

    memory: float  # peak of the pod, without pages of files, which the kernel can reclaim
    least_memory: float  # certain: a pod with less is killed
    checkpoint: float  # this node's part of a checkpoint
    disk: float  # base model, dataset, published model, and the checkpoint of a resume

    def with_dataset(self, size: int) -> Node:
        """The needs with a dataset of this size in bytes."""
        return replace(self, disk=self.disk + max(0, size - DATASET_BYTES))


def estimate_node(
    shape: ModelShape,
    workers: RankResources,
    method: MethodRef,
    *,
    rank_memory: float,
    zero_stage: int,
    offload: Offload,
) -> Node:
    """rank_memory: the peak of one rank on its device; on CPU, it is memory of the node."""
    here = workers.processes_per_node
    share = here / workers.ranks
    checkpoint = CHECKPOINT_BYTES * trained_parameters(shape, method) * share
    offloaded = here * pinned_bytes(shape, workers, method, zero_stage=zero_stage, offload=offload)
    on_cpu = here * rank_memory if workers.accelerator == "cpu" else 0.0
    # A rank loads and publishes one tensor at a time, in the file's precision and in fp32.
    per_element = here * 6
    if method.type == "lora" and shape.idle:  # one rank merges the experts of a layer
        per_element = max(per_element, MERGED_EXPERT_BYTES)
    tensor = per_element * largest_tensor(shape)
    certain = offloaded + checkpoint  # the copy of a checkpoint is memory that stays in use
    fixed = LAUNCHER_BYTES + here * RANK_BYTES[workers.accelerator]
    model = weight_bytes(workers) * shape.parameters
    copies = 1 if workers.has_model_cache else 2  # the published model, and the base model
    return Node(
        memory=certain + on_cpu + tensor + fixed,
        least_memory=certain + here * LEAST_RANK_BYTES,
        checkpoint=checkpoint,
        disk=copies * model + checkpoint + DISK_BYTES,
    )
