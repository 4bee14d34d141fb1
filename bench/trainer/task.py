"""The train task of the benchmark."""

from __future__ import annotations

import os
import socket

from bench.trainer.s3_server import BUCKET
from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.tasks import BaseModelRef, RunRef, TrainTask


def build_task(
    *,
    examples: int,
    batch_size: int = 8,
    zero_stage: int = 0,
    packing: bool = True,
    checkpoint_seconds: float = 1e9,
) -> TrainTask:
    """A task for one rank, with a constant learning rate and more epochs than a run needs."""
    return TrainTask(
        run=RunRef(
            namespace="bench", name="bench", uid=f"{os.getpid():08d}", output=f"s3://{BUCKET}/out"
        ),
        attempt=1,
        base=BaseModelRef(
            name="b", root="b", uri="s3://b/b", pretraining_learning_rate=1, context_length=1024
        ),
        dataset="s3://b/d",
        organization="bench",
        hyperparameters=ResolvedHyperparameters(
            n_epochs=50,
            batch_size=batch_size,
            learning_rate=1e-4,
            prompt_loss_weight=0.0,
            warmup_ratio=0.0,
            weight_decay=0.0,
            lr_schedule="constant",
            max_sequence_length=1024,
            seed=1,
        ),
        training_examples=examples,
        training_file="s3://b/t",
        nodes=1,
        processes_per_node=1,
        accelerator="cpu",
        zero_stage=zero_stage,
        packing=packing,
        checkpoint_seconds=checkpoint_seconds,
        master_host="127.0.0.1",
        master_port=1,
        progress_port=1,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
