"""Measures the host memory of a model as wide as one of 1 billion parameters, with few layers.

`write FOLDER` loads the base model, and writes it as a fine-tuned model, in full and with LoRA. The
latter is compared with the adapter over the base model.
`full FOLDER` and `lora FOLDER` also train a step with DeepSpeed and copy a checkpoint, as a rank on
a CPU does. They print the measurements as JSON.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from tests.trainer.one_rank import OneRank

WIDTH = {"hidden_size": 2048, "intermediate_size": 5632, "vocab_size": 32_000}
LAYERS = 2
PAUSE = 0.002  # seconds between two looks at the memory


class PeakMemory:
    """The most private and shared memory that this process has in a block, beyond its start's.

    Pages of mapped files are not counted: the kernel frees them when it needs memory.
    """

    def __enter__(self) -> "PeakMemory":
        self._start = used_bytes()
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(PAUSE):
            self.bytes = max(self.bytes, used_bytes() - self._start)


def used_bytes() -> int:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {line[0]: int(line[1]) * 1024 for line in lines if line[0].startswith("Rss")}
    return found["RssAnon:"] + found["RssShmem:"]


def create(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.initialization import no_init_weights

    config = LlamaConfig(**WIDTH, num_hidden_layers=LAYERS, num_attention_heads=32)
    config.dtype = torch.bfloat16
    with no_init_weights():
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    model.save_pretrained(folder)


def write(base: Path, folder: Path) -> dict[str, int]:
    """The peaks of writing a model in bf16, and the size of its largest weight in fp32."""
    from finetune_trainer.engine.loading import import_libraries, load_model
    from finetune_trainer.publishing.comparison import compare, compute_reference
    from finetune_trainer.publishing.weights import write_model

    import_libraries()
    rows = [[*range(row, 16 + row)] for row in range(4)]
    model: Any = load_model(base, "bf16")
    found = {"largest": max(4 * parameter.numel() for parameter in model.parameters())}
    for method in ("full", "lora"):
        if method == "lora":
            model = adapted(model)
        engine: Any = OneRank(model, "bf16")
        reference = compute_reference(engine, rows) if method == "lora" else None
        with PeakMemory() as peak:
            write_model(engine, folder / method, base)
            if reference is not None:
                compare(reference, engine, folder / method, base, print)
        found[method] = peak.bytes
    return found


def adapted(model: Any) -> Any:
    from finetune_api.tasks import MethodRef
    from finetune_trainer.engine.lora import add_adapter

    return add_adapter(model, MethodRef(type="lora", rank=8, alpha=16), seed=1)


def walk(method: str, base: Path, folder: Path) -> dict[str, int]:
    """What a rank on a CPU does from loading to publishing, with one small micro-batch."""
    from finetune_trainer.batching.microbatch import assemble
    from finetune_trainer.checkpoint.snapshot import HostCopy, state_of
    from finetune_trainer.engine.deepspeed import Engine, RankCoordinates, connect
    from finetune_trainer.engine.loading import import_libraries, load_model
    from finetune_trainer.publishing.weights import write_model
    from tests.trainer import support

    import_libraries()
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(support.free_port())}
    connect("cpu")
    with PeakMemory() as peak:
        model: Any = load_model(base, "fp32")
        if method == "lora":
            model = adapted(model)
        coordinates = RankCoordinates.from_environment()
        engine = Engine(model, coordinates, zero_stage=0, precision="fp32", weight_decay=0.0)
        batch = assemble(
            support.split_of(support.random_examples(1, seed=1)), [0], packed=False, prompts=True
        )
        engine.backward(engine.predict(batch, 0.1)[0], is_last=True)
        engine.step(1e-5)
        HostCopy(folder).take(state_of(engine))
        write_model(engine, folder, base)
    return {"peak": peak.bytes}


if __name__ == "__main__":
    kind, target = sys.argv[1], Path(sys.argv[2])
    base, folder = target / "base", target / kind
    print(json.dumps(write(base, folder) if kind == "write" else walk(kind, base, folder)))
    sys.stdout.flush()
    os._exit(0)  # as in `rank.main`: a regular exit may abort in threads of gloo
