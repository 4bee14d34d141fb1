"""The least time of a step: every kernel at the card's rate of products or of memory.

Forward and backward passes run with fake tensors, which have shapes and no memory, and every
operation counts its FLOPs and bytes. A kernel takes the longer of both times, and at least the time
of its launch. The gradients' sums and the update of the weights are added. Gaps between launches,
communication, and the host are not, so that the speed is an upper bound.

`python -m bench.gpu.roofline` prints where the time of the usual models would be spent, and what
fused kernels would save, without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from bench.gpu.models import SHAPES, configuration
from finetune_api.tasks import MethodRef

if TYPE_CHECKING:
    from torch import Tensor

# Bytes per trained parameter. For each micro-batch: the bf16 gradient becomes fp32 and is added.
# For the update: fp32 weights, gradients, and two moments are read, and most of them written.
ACCUMULATION_BYTES = 20
UPDATE_BYTES = 30
# Fused kernels read and write each activation once: forward, and backward with its recomputation.
FUSED_NORM = 2 + 3
FUSED_ROTARY = 2 + 2
FUSED_ACTIVATION = 3 + 5

Kind = Literal["product", "attention", "memory"]


@dataclass(frozen=True)
class Rates:
    """What a card reaches. The defaults are common for an H100, and not measured here."""

    products: float = 700e12  # FLOP/s
    attention: float = 350e12  # FLOP/s
    memory: float = 2.7e12  # bytes/s
    launch: float = 3e-6  # seconds


@dataclass(frozen=True)
class Kernel:
    kind: Kind
    group: str  # of modules, for the table
    flops: float
    size: float  # bytes read and written

    def seconds(self, rates: Rates) -> float:
        speeds = {"product": rates.products, "attention": rates.attention, "memory": float("inf")}
        return max(self.flops / speeds[self.kind], self.size / rates.memory, rates.launch)


@dataclass
class Pass:
    """The kernels of a forward and backward pass over one micro-batch."""

    tokens: int
    trained: int  # parameters
    kernels: list[Kernel] = field(default_factory=list)

    def seconds(self, rates: Rates) -> float:
        """The time of both passes, and of adding up the gradient."""
        return sum(self.groups(rates).values())

    def groups(self, rates: Rates) -> Counter[str]:
        """Seconds by group, the longest first."""
        found: Counter[str] = Counter()
        for kernel in self.kernels:
            found[kernel.group] += kernel.seconds(rates)
        found["sums of gradients"] = ACCUMULATION_BYTES * self.trained / rates.memory
        return Counter(dict(found.most_common()))

    def update_seconds(self, rates: Rates) -> float:
        return UPDATE_BYTES * self.trained / rates.memory


def tokens_per_second(one: Pass, micro_batches: int, rates: Rates) -> float:
    """The upper bound of the speed of a step with equal micro-batches."""
    seconds = micro_batches * one.seconds(rates) + one.update_seconds(rates)
    return micro_batches * one.tokens / seconds


def count_pass(
    model: str,
    bounds: Sequence[int],
    *,
    method: MethodRef,
    checkpointed: int = 0,
    is_fused: bool = False,
    targets: int | None = None,
    is_tiny: bool = False,
) -> Pass:
    """Count the kernels of a packed row. bounds: starts of the examples, and the row's end.

    checkpointed: layers whose activations are recomputed. is_fused: whether norms are torch's fused
    kernels. targets: tokens with a loss; no other passes through the head; None: all of them.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    from finetune_trainer.engine.lora import add_adapter
    from finetune_trainer.engine.memory_budget import enable_checkpointing
    from finetune_trainer.engine.objective import ComputePath, Objective

    with torch.device("meta"):  # peft cannot convert fake tensors
        made = AutoModelForCausalLM.from_config(
            configuration(model, is_tiny=is_tiny), dtype=torch.bfloat16
        ).train()
        if method.type == "lora":
            made = add_adapter(made, method, 1)
    with as_on_gpu(), FakeTensorMode(allow_non_fake_inputs=True):
        materialize(made)
        objective = Objective(made)
        objective.choose(ComputePath(is_chunked=True, is_packed=True, is_fused=is_fused))
        if checkpointed:
            enable_checkpointing(made, checkpointed)
        tokens = bounds[-1]
        parameters = [p for p in made.parameters() if p.requires_grad]
        found = Pass(tokens, sum(parameter.numel() for parameter in parameters))
        with counter(found, RunningModule(objective), bounds):
            row = torch.zeros(1, tokens, dtype=torch.int64)
            packing = {
                "bounds": tuple(bounds),
                "starts": torch.zeros(len(bounds), dtype=torch.int32),
            }
            places = row[0, :targets]
            weights = torch.ones(len(places), dtype=torch.float64)
            objective(row, row, places, places, weights, packing)[0].backward()
    return found


def materialize(model: Any) -> None:
    """Replace meta tensors by fake ones of the CPU; a tied weight stays tied."""
    import torch

    made: dict[int, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if isinstance(tensor, torch.nn.Parameter):
                        fake = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = fake
                tensors[name] = made[id(tensor)]


@contextlib.contextmanager
def as_on_gpu() -> Iterator[None]:
    """Use the kernels for attention and for norms, and the chunks of the head, of a GPU."""
    from finetune_data.memory.activations import CHUNK_BYTES
    from finetune_trainer.engine import attention, fused_norms

    attention.register()
    former = attention.has_kernel, fused_norms._rms_norm, CHUNK_BYTES["cpu"]
    attention.has_kernel = lambda query, dropout: True
    fused_norms._rms_norm = norm_operation()
    CHUNK_BYTES["cpu"] = CHUNK_BYTES["cuda"]
    try:
        yield
    finally:
        attention.has_kernel, fused_norms._rms_norm, CHUNK_BYTES["cpu"] = former


@cache
def norm_operation() -> Any:
    """An RMSNorm with the inputs and outputs of the fused kernels, which a CPU does not have."""
    import torch

    def unusable(*tensors: Any) -> Any:
        raise NotImplementedError("this operation has shapes only")

    forward = torch.library.custom_op(
        "bench_gpu::rms_norm",
        unusable,
        mutates_args=(),
        schema="(Tensor hidden, Tensor weight) -> (Tensor, Tensor)",
    )
    backward = torch.library.custom_op(
        "bench_gpu::rms_norm_backward",
        unusable,
        mutates_args=(),
        schema="(Tensor gradient, Tensor hidden, Tensor weight, Tensor scale) -> (Tensor, Tensor)",
    )

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs, output[1])

    def differentiate(ctx: Any, gradient: Any, _: Any) -> Any:
        return backward(gradient, *ctx.saved_tensors)

    def shapes(hidden: Tensor, weight: Tensor) -> Any:
        return torch.empty_like(hidden), hidden.new_empty(hidden.shape[:-1], dtype=torch.float32)

    forward.register_fake(shapes)
    backward.register_fake(
        lambda gradient, hidden, weight, scale: tuple(map(torch.empty_like, (hidden, weight)))
    )
    forward.register_autograd(differentiate, setup_context=save)
    return lambda hidden, weight, epsilon: forward(hidden, weight)[0]


class RunningModule:
    """The name of the innermost module that computes, forward or backward.

    torch's ModuleTracker does not see tensors in keyword arguments, so that it never leaves the
    backward pass of a layer's attention.
    """

    def __init__(self, model: Any) -> None:
        self._forward: list[str] = []
        self._backward = ""
        self._outputs: set[int] = set()  # ids of tensors, which the hooks keep alive
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)
            module.register_forward_hook(partial(self._leave, name), always_call=True)

    @property
    def name(self) -> str:
        return self._forward[-1] if self._forward else self._backward

    def _enter(self, name: str, module: Any, args: Any, kwargs: Any) -> None:
        around = self.name
        for tensor in tensors_in((args, kwargs)):
            if tensor.requires_grad and id(tensor) not in self._outputs:
                tensor.register_hook(partial(self._continue, around))
        self._forward.append(name)

    def _leave(self, name: str, module: Any, args: Any, output: Any) -> None:
        while self._forward and self._forward.pop() != name:
            pass  # modules that an exception left
        for tensor in tensors_in(output):
            if tensor.requires_grad and id(tensor) not in self._outputs:
                self._outputs.add(id(tensor))
                tensor.register_hook(partial(self._continue, name, tensor=tensor))

    def _continue(self, name: str, gradient: Any, tensor: Any = None) -> None:
        """The backward pass reaches the module `name`."""
        self._forward.clear()
        self._backward = name


def counter(found: Pass, modules: RunningModule, bounds: Sequence[int]) -> Any:
    """A mode that adds the kernel of each operation to `found`."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            name = function.overloadpacket.__name__
            kernel = kernel_of(name, (args, kwargs), result, bounds)
            if kernel is not None:
                kind, flops, size = kernel
                group = group_of(kind, modules.name)
                found.kernels.append(Kernel(kind, group, flops, size))
            return result

    return Counting()


NO_KERNEL = ("empty", "detach", "prim", "sym_", "lift", "_local_scalar")
LOOKUPS = ("embedding", "gather", "index_select", "index")  # read only the chosen rows
WRITES = ("copy_", "fill_", "zero_")  # do not read their target
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")


def kernel_of(
    name: str, arguments: Any, result: Any, bounds: Sequence[int]
) -> tuple[Kind, float, float] | None:
    """Kind, FLOPs, and bytes of an operation; None if it starts no kernel, such as a view."""
    inputs, outputs = tensors_in(arguments), tensors_in(result)
    if name.startswith(NO_KERNEL) or not outputs:
        return None
    if "varlen_attn" in name:
        widest = max((t for t in inputs if t.dim() == 3), key=lambda t: t.shape[1])
        pairs = sum((end - begin) * (end - begin + 1) / 2 for begin, end in pairwise(bounds))
        products = 5 if "backward" in name else 2
        flops = products * 2 * widest.shape[1] * widest.shape[2] * pairs
        return "attention", flops, sum(map(nbytes, [*inputs, *outputs]))
    stored = {tensor.untyped_storage()._cdata for tensor in inputs}
    is_view = all(tensor.untyped_storage()._cdata in stored for tensor in outputs)
    if is_view and not name.endswith("_") and ".out" not in name and name not in PRODUCTS:
        return None
    if name in PRODUCTS:
        left, right = (
            [tensor for tensor in inputs if tensor.dim() >= 2][-2:]
            if name.startswith(("add", "badd"))
            else inputs[:2]
        )
        flops = 2.0 * left.numel() * right.shape[-1]
        return "product", flops, sum(map(nbytes, [left, right, *outputs]))
    if name in LOOKUPS:
        return "memory", 0.0, 2.0 * sum(map(nbytes, outputs))
    if name in WRITES:
        return "memory", 0.0, sum(map(nbytes, inputs))
    return "memory", 0.0, sum(map(nbytes, [*inputs, *outputs]))


def tensors_in(value: Any) -> list[Tensor]:
    import torch
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def nbytes(tensor: Tensor) -> float:
    """Bytes to read or write, without the repetitions of an expanded tensor."""
    size = tensor.numel() * tensor.element_size()
    return float(min(size, tensor.untyped_storage().nbytes()))


def group_of(kind: Kind, name: str) -> str:
    """The group of a kernel in the module `name`."""
    last = name.rpartition(".")[2]
    if last == "head":
        return "head"
    if "lora" in name:
        return "adapter"
    if kind != "memory":
        return {"product": "products", "attention": "attention"}[kind]
    if last.endswith("norm"):
        return "norms"
    if last.endswith("_proj"):  # peft's layer adds the adapter's output
        return "additions"
    if ".mlp" in name:
        return "activation function"
    if ".self_attn" in name or "rotary" in name:
        return "rotary embedding"
    if ".layers." in name:
        return "additions"
    return "other"


def fused_seconds(
    model: str, tokens: int, rates: Rates, *, is_checkpointed: bool = False
) -> Counter[str]:
    """The time of the three groups with one fused kernel each, for both passes."""
    shape = SHAPES[model]
    layers, hidden = shape["num_hidden_layers"], shape["hidden_size"]
    size = hidden // shape["num_attention_heads"]
    heads = shape["num_attention_heads"] + shape["num_key_value_heads"]
    forwards = {"norms": 2, "rotary embedding": 2, "activation function": 3}
    values = {
        "norms": FUSED_NORM * (2 * layers + 1) * hidden,
        "rotary embedding": FUSED_ROTARY * layers * heads * size,
        "activation function": FUSED_ACTIVATION * layers * shape["intermediate_size"],
    }
    if is_checkpointed:  # the forward pass runs twice
        widths = {
            "norms": 2 * layers * hidden,
            "rotary embedding": layers * heads * size,
            "activation function": layers * shape["intermediate_size"],
        }
        values = {name: value + forwards[name] * widths[name] for name, value in values.items()}
    return Counter({name: 2 * tokens * value / rates.memory for name, value in values.items()})


def main() -> None:
    """Print the time of each group in a forward and backward pass, and that of fused kernels."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", choices=SHAPES, default="1B")
    parser.add_argument("--lora", action="store_true", help="an adapter of rank 16")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the adapter")
    parser.add_argument("--checkpointed", action="store_true", help="recompute activations")
    parser.add_argument("--fused-norms", action="store_true", help="with torch's fused RMSNorm")
    parser.add_argument("--tokens", type=int, default=16_384, help="of a micro-batch")
    parser.add_argument("--length", type=int, default=512, help="tokens of an example")
    options = parser.parse_args()
    method = MethodRef(type="lora" if options.lora else "full", dropout=options.dropout)
    bounds = range(0, options.tokens + 1, options.length)
    one = count_pass(
        *(options.model, bounds),
        method=method,
        checkpointed=SHAPES[options.model]["num_hidden_layers"] * options.checkpointed,
        is_fused=options.fused_norms,
    )
    rates = Rates()
    groups, whole = one.groups(rates), one.seconds(rates)
    fused = fused_seconds(options.model, one.tokens, rates, is_checkpointed=options.checkpointed)
    print(f"{rates}\n{len(one.kernels):,} kernels, {one.trained / 1e6:,.1f} M trained parameters")
    print(f"{'group':22} {'ms':>8} {'share':>6} {'fused, ms':>10}")
    for name, seconds in groups.items():
        other = f"{1e3 * fused[name]:10.1f}" if name in fused else ""
        print(f"{name:22} {1e3 * seconds:8.1f} {seconds / whole:6.1%} {other}")
    saved = sum(groups[name] - fused[name] for name in fused)
    print(f"{'all':22} {1e3 * whole:8.1f}        {1e3 * (whole - saved):10.1f}")
    print(
        f"at most {tokens_per_second(one, 1, rates):,.0f} tokens/s with one micro-batch in a step"
    )
    print(f"fused kernels would save {saved / whole:.0%} of the time of these kernels")


if __name__ == "__main__":
    main()
