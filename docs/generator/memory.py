"""Renders the table of what fits where, from the memory estimate of the prepare Job."""

from collections.abc import Iterator

from docs.generator.markdown import HEADER, table
from finetune_api.tasks import MethodRef, RankResources
from finetune_data.memory.plan import Plan, choose_plan, in_gib
from finetune_data.memory.shape import ModelShape

GPUS_PER_NODE = 8
CARDS = (24, 48, 80, 141)  # GiB
RANKS = (1, 2, 8, 16, 64)
TOKENS = (2048, 8192, 32768)
METHODS = {"full": MethodRef(), "lora": MethodRef(type="lora")}

# The published configs of Llama 3.2 1B and 3B, Llama 3.1 8B and 70B, and Qwen2.5 32B.
_LLAMA = {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8}
CONFIGS = {
    "1B": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "3B": _LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "8B": _LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "32B": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
    },
    "70B": _LLAMA
    | {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
}

HEAD = f"""# What fits where

This page lists the plan that the data check chooses when `spec.deepspeed` is not set: the ZeRO
stage, the offload, and the estimated peak memory. Find the size of your model and the length of
your longest example in tokens.

- A cell such as **1: 58 + 130** means ZeRO stage 1, 58 GiB of memory of each GPU, and 130 GiB of
  host memory of each pod. A pod has up to {GPUS_PER_NODE} GPUs.
- **opt** means that the optimizer is offloaded to host memory, and **par** that the parameters are
  offloaded as well. Offload is slow.
- A dash means that the estimate exceeds the memory of the GPUs for every stage and offload mode.

The models have the published shapes of Llama 3.2 1B and 3B, Llama 3.1 8B and 70B, and Qwen2.5 32B.
LoRA has rank {METHODS["lora"].rank} on all linear layers.

A test checks the plan for every cell and for pods with 64, 256, and 1,024 GiB of memory. It counts
the bytes that DeepSpeed and torch allocate for the trainer, with tensors that have a size but no
values, on a GPU that does not exist. A plan that the data check accepts fits. For a configuration
that it refuses, every ZeRO stage and offload mode needs more than 75 % of the memory of the GPU or
85 % of the memory of the pod. The memory that CUDA and NCCL use is an assumption, and nothing on
this page has been measured on GPUs.

The estimate is the memory with one example of the given length. A run uses more, because
micro-batches grow until they fill the free memory of the GPU.

"""


def pages() -> dict[str, str]:
    """Map each page to its text."""
    text = HEADER + HEAD
    for name, method in METHODS.items():
        text += f"## {'Full fine-tuning' if name == 'full' else 'LoRA'}\n\n"
        for tokens in TOKENS:
            text += f"### Examples of up to {tokens:,} tokens\n\n"
            head = ["model", "GPUs", *(f"{card} GiB" for card in CARDS)]
            text += table(head, _rows(method, tokens)) + "\n"
    return {"reference/memory.md": text.rstrip("\n") + "\n"}


def _rows(method: MethodRef, tokens: int) -> Iterator[list[str]]:
    for name in CONFIGS:
        for ranks in RANKS:
            plans = [choose_plan(shape(name), workers(ranks, c), method, tokens) for c in CARDS]
            yield [name, str(ranks), *map(_cell, plans)]


def _cell(plan: Plan | None) -> str:
    if plan is None:
        return "—"
    offload = {"none": "", "optimizer": " opt", "parameters": " par"}[plan.offload]
    memory, host = plan.peak, plan.node.memory
    return f"{plan.zero_stage}{offload}: {in_gib(memory):.0f} + {in_gib(host):.0f}"


def shape(name: str) -> ModelShape:
    """The shape of a model of `CONFIGS`."""
    found = ModelShape.of(CONFIGS[name], None)
    assert found is not None
    return found


def workers(ranks: int, card: float, memory: float | None = None) -> RankResources:
    """card: GiB of a GPU. memory: GiB of a pod; None: no limit."""
    here = min(ranks, GPUS_PER_NODE)
    return RankResources(
        nodes=ranks // here,
        processes_per_node=here,
        accelerator="nvidia",
        gpu_memory_gib=card,
        memory_gib=memory,
    )
