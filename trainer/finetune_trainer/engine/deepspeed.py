"""DeepSpeed, and nothing else knows it: ZeRO 0 to 3, AdamW, clipping, exact accumulation.

Gradients: DeepSpeed averages over the ranks and here never divides by the number of micro-batches
(accumulation is steered by hand, so that it may differ from step to step); `loss.scale` undoes the
average. What a rank holds of weights and moments: `fragments`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from finetune_trainer.batching.microbatch import MicroBatch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

    from finetune_trainer.engine.head import Predicted
    from finetune_trainer.engine.objective import ComputePath

CLIP = 1.0
BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET = 50_000_000  # elements of a reduction; DeepSpeed's default allocates ten times this
# Rank 0 uploads while the others wait. A rank that is gone is noticed by its pod, not by this.
COLLECTIVE_TIMEOUT = timedelta(hours=2)

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class RankCoordinates:
    """Which of the gang this process is; the launcher says so."""

    rank: int
    local_rank: int
    ranks: int

    @classmethod
    def from_environment(cls) -> "RankCoordinates":
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


def parameter_groups(model: "Module", weight_decay: float) -> list[dict[str, Any]]:
    """What AdamW gets: norms and biases never decay. ZeRO does everything once a group."""
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.dim() > 1 and weight_decay]
    others = [p for p in trained if p.dim() <= 1 or not weight_decay]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Engine:
    """The model in training, over all ranks."""

    def __init__(
        self,
        model: "Module",
        place: RankCoordinates,
        *,
        zero_stage: int,
        precision: Precision,
        weight_decay: float,
        offload: str = "none",
        clip: float = CLIP,
    ) -> None:
        import deepspeed
        import torch

        from finetune_trainer.engine.objective import Objective

        # DeepSpeed's bf16 without ZeRO keeps no state that can be read; ZeRO 1 is the same sums.
        self.zero_stage = max(1, zero_stage) if precision == "bf16" else zero_stage
        self.coordinates = place
        self.precision = precision
        self._clip = clip
        self.model = model
        self.objective = Objective(model)
        groups = parameter_groups(model, weight_decay)
        adam = torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=BETAS,
            eps=EPSILON,
            fused=offload == "none",
        )
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=self.objective,
            optimizer=adam,
            config=configuration(
                zero_stage=self.zero_stage,
                precision=precision,
                offload=offload,
                ranks=place.ranks,
                clip=clip if self.zero_stage else 0.0,  # see `step`
            ),
        )
        if self.zero_stage == 0 and place.ranks == 1:
            self._engine.enable_backward_allreduce = False  # it would copy all gradients, twice
        # DeepSpeed's wrappers hold flat partitions; without one these are the parameters.
        self._adam = adam if self.zero_stage == 0 else self._optimizer.optimizer
        self.device = torch.device(self._engine.device)
        self.start_at(0)

    # --- one step --------------------------------------------------------------------------------

    def predict(self, batch: MicroBatch, prompt_weight: float) -> "Predicted":
        """Σ w·nll to run backward from, the nll of each target [n], and whether argmax is right."""
        from finetune_trainer.engine.objective import arguments

        module = self._engine if self.model.training else self.objective
        found: Predicted = module(*arguments(batch, prompt_weight, self.device))
        return found

    @property
    def compute_path(self) -> "ComputePath":
        """How `predict` wants its micro-batches."""
        return self.objective.compute_path

    def backward(self, loss: "Tensor", *, is_last: bool) -> None:
        """Add the gradient of one micro-batch; all ranks reduce with the last of the step."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> float:
        """Clip and update. Returns the gradient's norm before clipping."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        if self.zero_stage == 0:  # DeepSpeed clips here without returning the norm
            norm = self._clip_gradients()
            self._engine.step()
        else:
            self._engine.step()
            norm = self._engine.get_global_grad_norm()
        return float(norm)

    def _clip_gradients(self) -> "Tensor":
        """As DeepSpeed does from ZeRO 1 on: summed in float64 where float32 loses the fifth digit.

        A CPU adds a long sum's numbers one by one; without this, one rank and two would differ.
        """
        import torch

        wide = torch.float64 if self.device.type == "cpu" else None
        gradients = [it.grad for it in self._parameters if it.grad is not None]
        norms = [torch.linalg.vector_norm(gradient, dtype=wide) for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        torch.nn.utils.clip_grads_with_norm_(self._parameters, self._clip, norm.float())
        return norm

    def gradient(self, parameter: "Parameter") -> "Tensor":
        """The whole reduced gradient, between the last `backward` and `step`. A collective."""
        from deepspeed.utils import safe_get_full_grad

        found: Tensor = parameter.grad if self.zero_stage == 0 else safe_get_full_grad(parameter)
        return found

    # --- all ranks -------------------------------------------------------------------------------

    def sum(self, values: "Tensor") -> "Tensor":
        """The float64 sums over all ranks."""
        import torch

        if self.coordinates.ranks > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, own: bool) -> bool:
        """Whether it is so on any rank."""
        import torch

        value = torch.tensor([float(own)], dtype=torch.float64, device=self.device)
        return bool(self.sum(value).item())

    def least(self, own: float) -> float:
        """The smallest of all ranks'."""
        import torch

        value = torch.tensor([own], dtype=torch.float64, device=self.device)
        return float(self.gather(value).min())

    def gather(self, values: "Tensor") -> "Tensor":
        """[ranks, ...]: the same shape from every rank."""
        import torch

        found = [torch.empty_like(values) for _ in range(self.coordinates.ranks)]
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

    def adam_state(self, parameter: "Parameter") -> dict[str, "Tensor"]:
        """The optimizer's own, where no partition stands between them (ZeRO 0)."""
        found: dict[str, Tensor] = self._adam.state[parameter]
        return found

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
