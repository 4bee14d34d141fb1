"""DeepSpeed, and nothing else knows it: ZeRO 0 to 3, AdamW, clipping, exact accumulation.

Gradients: DeepSpeed averages over the ranks and here never divides by the number of micro-batches
(accumulation is steered by hand, so that it may differ from step to step); `loss.scale` undoes the
average. State: `read_*` and `write_state` see whole fp32 tensors, however many ranks share them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

CLIP = 1.0
BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET = 50_000_000  # elements of a reduction; DeepSpeed's default allocates ten times this
# Rank 0 uploads while the others wait. A rank that is gone is noticed by its pod, not by this.
COLLECTIVE_TIMEOUT = timedelta(hours=2)

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Place:
    """Which of the gang this process is; torchrun says so."""

    rank: int
    local_rank: int
    ranks: int

    @classmethod
    def from_environment(cls) -> "Place":
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        return cls(*(int(os.environ[name]) for name in names))


def connect(accelerator: str) -> None:
    """Join the other ranks."""
    import deepspeed
    import torch
    from deepspeed.ops import __compatible_ops__ as compatible_ops

    # Serves inference only, and DeepSpeed would compile it now: no compiler, a read-only root.
    compatible_ops["deepspeed_shm_comm"] = False
    if accelerator == "nvidia":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(
        dist_backend="gloo" if accelerator == "cpu" else "nccl",
        timeout=COLLECTIVE_TIMEOUT,
        verbose=False,
    )


def configuration(
    *, zero_stage: int, precision: Precision, offload: str, ranks: int, clip: float = CLIP
) -> dict[str, Any]:
    """DeepSpeed's JSON. The batch sizes are only there because it wants them."""
    zero: dict[str, Any] = {
        "stage": zero_stage,
        "overlap_comm": False,  # wrong gradients in ZeRO 2: DeepSpeed#4298, #5294
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    }
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload == "parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    value: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": ranks,
        "gradient_clipping": clip,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # its CPU Adam is compiled when it starts
        "steps_per_print": None,
    }
    if precision == "bf16":
        value |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    return value


class Engine:
    """The model in training, over all ranks."""

    def __init__(
        self,
        model: "Module",
        place: Place,
        *,
        zero_stage: int,
        precision: Precision,
        weight_decay: float,
        offload: str = "none",
        clip: float = CLIP,
    ) -> None:
        import deepspeed
        import torch

        # DeepSpeed's bf16 without ZeRO keeps no state that can be read; ZeRO 1 is the same sums.
        self.zero_stage = max(1, zero_stage) if precision == "bf16" else zero_stage
        self.place = place
        self.precision = precision
        self._clip = clip
        decayed = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
        others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
        adam = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=BETAS,
            eps=EPSILON,
            fused=offload == "none",
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=adam,
            config=configuration(
                zero_stage=self.zero_stage,
                precision=precision,
                offload=offload,
                ranks=place.ranks,
                clip=clip,
            ),
        )
        # DeepSpeed's wrappers hold flat partitions; without one these are the parameters.
        self._adam = adam if self.zero_stage == 0 else self._optimizer.optimizer
        self.device = torch.device(self._engine.device)
        self.model = model
        self.start_at(0)

    # --- one step --------------------------------------------------------------------------------

    def logits(self, tokens: "Tensor") -> "Tensor":
        """[rows, width - 1, vocabulary]: what predicts each token from the second on.

        Padding stands on the right, where causal attention never looks: no mask is needed, and
        without one attention is at its fastest. Explicit positions and `use_cache=False` keep
        transformers from guessing.
        """
        import torch

        inputs = tokens[:, :-1]
        positions = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
        module = self._engine if self.model.training else self.model
        output = module(input_ids=inputs, position_ids=positions, use_cache=False)
        logits: Tensor = output.logits
        return logits

    def backward(self, loss: "Tensor", *, is_last: bool) -> None:
        """Add the gradient of one micro-batch; all ranks reduce with the last of the step."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Clip and update. Returns the gradient's norm before clipping."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        if self.zero_stage == 0:
            norm = self._norm_of_whole_gradients()
            self._engine.step()
        else:
            self._engine.step()
            norm = self._engine.get_global_grad_norm()
        return float(norm)

    def _norm_of_whole_gradients(self) -> float:
        import torch

        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def gradient(self, parameter: "Parameter") -> "Tensor":
        """The whole reduced gradient, between the last `backward` and `step`. A collective."""
        from deepspeed.utils import safe_get_full_grad

        found: Tensor = parameter.grad if self.zero_stage == 0 else safe_get_full_grad(parameter)
        return found

    # --- all ranks -------------------------------------------------------------------------------

    def sum(self, values: "Tensor") -> "Tensor":
        """The float64 sums over all ranks."""
        import torch

        if self.place.ranks > 1:
            torch.distributed.all_reduce(values)
        return values

    def gather(self, values: "Tensor") -> "Tensor":
        """[ranks, ...]: the same shape from every rank."""
        import torch

        found = [torch.empty_like(values) for _ in range(self.place.ranks)]
        torch.distributed.all_gather(found, values)
        return torch.stack(found)

    def barrier(self) -> None:
        import torch

        self.sum(torch.zeros(1, dtype=torch.float64, device=self.device)).item()

    # --- state -----------------------------------------------------------------------------------

    def parameters(self) -> Iterator[tuple[str, "Parameter"]]:
        """Those that are trained, in the same order everywhere; a tied one once."""
        return (pair for pair in self.model.named_parameters() if pair[1].requires_grad)

    def shape(self, parameter: "Parameter") -> tuple[int, ...]:
        """The whole parameter's, which ZeRO 3 has cut in pieces."""
        return tuple(getattr(parameter, "ds_shape", parameter.shape))

    def read_weights(self, parameter: "Parameter") -> "Tensor":
        """The whole fp32 master weights. A collective."""
        from deepspeed.utils import safe_get_full_fp32_param

        found: Tensor = (
            parameter.data if self.zero_stage == 0 else safe_get_full_fp32_param(parameter)
        )
        return found.detach()

    def read_moments(self, parameter: "Parameter") -> dict[str, "Tensor"]:
        """Adam's two moments, whole. A collective."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if self.zero_stage == 0:
            return {key: self._adam.state[parameter][key] for key in MOMENTS}
        return {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}

    def start_at(self, step: int) -> None:
        """Adam's state as after `step` steps, its moments zero until they are written.

        (DeepSpeed links the states when the first group of parameters has had its first step, and
        so would never find those of the second.)
        """
        import torch

        if self.zero_stage == 3:  # which puts its partitions into the groups only while it steps
            tensors = list(self._optimizer.fp32_partitioned_groups_flat)
        else:
            tensors = [t for group in self._adam.param_groups for t in group["params"]]
        for tensor in tensors:
            self._adam.state[tensor] = {
                "step": torch.tensor(float(step), device=tensor.device),
                **{key: torch.zeros_like(tensor) for key in MOMENTS},
            }
        if self.zero_stage in {1, 2}:
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def write_state(
        self, parameter: "Parameter", weights: "Tensor", moments: dict[str, "Tensor"]
    ) -> None:
        """Every rank takes its share of whole tensors. `start_at` comes first."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if self.zero_stage == 3:
            return self._write_pieces(parameter, weights, moments)
        parameter.data.copy_(weights)
        if self.zero_stage == 0:
            for key in MOMENTS:
                self._adam.state[parameter][key].copy_(moments[key])
            return None
        safe_set_full_fp32_param(parameter, weights)
        for key in MOMENTS:
            safe_set_full_optimizer_state(parameter, moments[key], key)
        return None

    def _write_pieces(
        self, parameter: Any, weights: "Tensor", moments: dict[str, "Tensor"]
    ) -> None:
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        piece = parameter.ds_tensor.numel()

        def mine(whole: "Tensor") -> "Tensor":
            # safe_set_full_* fails where the ranks do not divide the parameter
            from torch.nn import functional

            flat = functional.pad(whole.flatten(), (0, piece * self.place.ranks - whole.numel()))
            return flat.narrow(0, piece * self.place.rank, piece)

        parameter.ds_tensor.data.copy_(mine(weights))
        if parameter.data.numel() == weights.numel():  # a small one, which every rank keeps whole
            parameter.data.copy_(weights)
        safe_set_local_fp32_param(parameter, mine(weights))
        for key in MOMENTS:
            safe_set_local_optimizer_state(parameter, mine(moments[key]), key)
