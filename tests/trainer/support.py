"""Builders of a tiny Llama, a small dataset, a task, and its pods, in an S3 server."""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.layout import MANIFEST
from finetune_api.outcome import Outcome
from finetune_api.tasks import BaseModelRef, RunRef, TrainTask
from finetune_api.uris import S3Uri
from finetune_data.tokenize.dataset import (
    DatasetManifest,
    DatasetSource,
    SplitCounts,
    TokenSplit,
    write_dataset,
)
from finetune_storage.manifests import file_entry
from finetune_storage.s3 import Storage
from finetune_trainer.engine import loading
from tests.data.builders import put_folder
from tests.support import objects

ROOT = Path(__file__).parents[2]
VOCABULARY = 64
BUCKET = "tests"

Example = tuple[list[int], list[int]]  # prompt, completion (its end-of-sequence token included)


def split_of(examples: Sequence[Example]) -> TokenSplit:
    """A TokenSplit in memory."""
    tokens = [token for prompt, completion in examples for token in prompt + completion]
    roles = [
        role
        for prompt, completion in examples
        for role in [1] * len(prompt) + [2] * len(completion)
    ]
    lengths = [len(prompt) + len(completion) for prompt, completion in examples]
    return TokenSplit(
        np.array(tokens, np.int32),
        np.array(roles, np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def random_examples(count: int, seed: int, longest: int = 24) -> list[Example]:
    """Completions that depend on their prompts, so that the loss can fall."""
    random = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        prompt = random.integers(3, VOCABULARY, random.integers(2, longest // 2 + 1)).tolist()
        size = int(random.integers(1, longest // 2))
        completion = [3 + (prompt[0] + i) % (VOCABULARY - 3) for i in range(size)] + [2]
        examples.append((prompt, completion))
    return examples


def tiny_llama(seed: int = 0, *, tied: bool = False) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def save_tiny_llama(folder: Path) -> None:
    """Save a base model: weights, configuration, and tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tiny_llama(tied=True).save_pretrained(folder)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "w2"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def put_base_model(storage: Storage, uri: S3Uri, folder: Path) -> None:
    save_tiny_llama(folder)
    put_folder(storage, folder, uri)


def put_dataset(storage: Storage, uri: S3Uri, folder: Path, **splits: Sequence[Example]) -> None:
    """Upload a dataset as the prepare Job does. splits: `train`, and optionally `validation`."""
    folder.mkdir(parents=True)
    counts, files = {}, []
    for name, examples in splits.items():
        split = split_of(examples)
        for part in ("tokens", "roles", "offsets"):
            np.save(folder / f"{name}.{part}.npy", getattr(split, part))
            files.append(file_entry(folder, f"{name}.{part}.npy"))
        counts[name] = SplitCounts(examples=len(split), tokens=len(split.tokens))
    source = DatasetSource(tokenizer_sha256="0" * 64, context_length=1024, inputs={})
    write_dataset(folder, uri, storage, DatasetManifest(source=source, splits=counts, files=files))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def hyperparameters(**changes: Any) -> ResolvedHyperparameters:
    """The usual ones, with a learning rate at which the tiny Llama learns."""
    usual = objects.hyperparameters().replace(learning_rate_multiplier=None)
    return usual.replace(**{"batch_size": 8, "learning_rate": 3e-3} | changes)


def train_task(uid: str, **changes: Any) -> TrainTask:
    return TrainTask(
        run=RunRef(namespace="team", name="tiny", uid=uid, output=f"s3://{BUCKET}/out"),
        attempt=1,
        base=BaseModelRef(
            name="ada",
            root="ada",
            uri=f"s3://{BUCKET}/models/tiny",
            pretraining_learning_rate=1e-3,
            context_length=1024,
        ),
        dataset=f"s3://{BUCKET}/out/team/datasets/{uid[:8]}",
        organization="Your Org",
        suffix="custom model name",
        hyperparameters=hyperparameters(),
        training_examples=40,
        training_file="s3://tests/train.jsonl",
        nodes=2,
        processes_per_node=1,
        accelerator="cpu",
        zero_stage=1,
        master_host="127.0.0.1",
        master_port=free_port(),
        progress_port=free_port(),
    ).replace(**changes)


def import_libraries() -> None:
    """In a process of ranks: import what engines and `tiny_llama` need.

    DeepSpeed collects garbage several times for each engine. No collection scans the libraries.
    """
    loading.import_libraries()
    import transformers

    assert transformers.LlamaForCausalLM
    gc.collect()
    gc.freeze()


def pod_environment(**added: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **added}


@dataclass
class Pod:
    """A process of `python -m finetune_trainer`, as in a container."""

    process: "subprocess.Popen[str]"
    folder: Path
    node_rank: int

    @classmethod
    def start(cls, task: TrainTask, node_rank: int, folder: Path) -> "Pod":
        folder.mkdir(parents=True)
        if node_rank:  # the pods share one machine
            task = task.replace(progress_port=free_port())
        environment = pod_environment(
            FINETUNE_TASK=task.to_json(), JOB_COMPLETION_INDEX=str(node_rank)
        )
        command = [
            *(sys.executable, "-m", "finetune_trainer"),
            *("--work-folder", str(folder / "work")),
            *("--termination-log", str(folder / "termination-log")),
        ]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
            )
        return cls(process, folder, node_rank)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def rank_pid(self) -> int:
        """The process id of the pod's only rank; 0 before it runs."""
        path = self.folder / "work" / "rank-0.pid"
        return int(path.read_text()) if path.exists() else 0

    def wait(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)

    @property
    def outcome(self) -> Outcome | None:
        path = self.folder / "termination-log"
        return Outcome.parse(path.read_text()) if path.exists() else None


def start_pods(task: TrainTask, folder: Path) -> list[Pod]:
    return [Pod.start(task, rank, folder / f"pod-{rank}") for rank in range(task.nodes)]


def checkpoint_steps(storage: Storage, task: TrainTask) -> list[int]:
    entries = storage.list(task.run.layout.checkpoints)
    complete = [entry.key for entry in entries if entry.key.endswith(MANIFEST)]
    return sorted(int(key.split("/")[-2].removeprefix("step-")) for key in complete)


def run_ranks(module: str, ranks: int, *arguments: str) -> None:
    """Run `python -m module` as the ranks of one process group on CPU, until all have exited."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--max-restarts=0"),
            *(f"--nproc-per-node={ranks}", f"--master-port={free_port()}", "-m", module),
            *arguments,
        ],
        env=pod_environment(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES=""),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
