"""Wraps DeepSpeed: ZeRO 0 to 3, AdamW, gradient clipping, and exact gradient accumulation.

DeepSpeed averages gradients over the ranks, and `loss.scale` undoes that. It does not divide by the
number of micro-batches here: accumulation is controlled manually, so that their number may differ
from step to step. For the weights and moments that a rank holds, see `fragments`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from finetune_data.memory.shape import ModelShape
from finetune_data.memory.states import BUCKET, SUB_GROUP, live_parameters
from finetune_trainer.batching.microbatch import MicroBatch
from finetune_trainer.engine import placement
from finetune_trainer.engine.placement import full_shape

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

    from finetune_trainer.engine.head import Predicted
    from finetune_trainer.engine.objective import ComputePath

CLIP = 1.0
BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")
# The other ranks wait while rank 0 uploads. The launchers detect failed ranks, not this timeout.
COLLECTIVE_TIMEOUT = timedelta(hours=2)

# Elements that ZeRO 3 gathers, keeps on a GPU, and updates at a time
GATHERED = (
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_prefetch_bucket_size",
    "sub_group_size",
)
BUFFERS = {*GATHERED, "reduce_bucket_size", "allgather_bucket_size"}

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class RankCoordinates:
    """The position of this process among all ranks, as set by the launcher."""

    rank: int
    local_rank: int
    ranks: int

    @classmethod
    def from_environment(cls) -> "RankCoordinates":
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        return cls(*(int(os.environ[name]) for name in names))


def connect(accelerator: str) -> None:
    """Join the other ranks, with NCCL on GPUs and gloo on CPUs."""
    import deepspeed
    import torch

    # The only one used is for inference, and DeepSpeed would compile it now: the image has no
    # compiler. The table is empty so that DeepSpeed does not probe every op, with warnings on GPUs.
    deepspeed.ops.__compatible_ops__ = {}
    if accelerator == "nvidia":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(
        dist_backend="gloo" if accelerator == "cpu" else "nccl",
        timeout=COLLECTIVE_TIMEOUT,
        verbose=False,
    )


def configuration(
    *,
    zero_stage: int,
    precision: Precision,
    offload: str,
    ranks: int,
    clip: float = CLIP,
    overlaps: bool = False,
    buffer_share: float = 1,
    shape: ModelShape | None = None,
) -> dict[str, Any]:
    """DeepSpeed's configuration. The batch sizes have no effect, but DeepSpeed requires them.

    overlaps: whether ZeRO 3 communicates on its own CUDA streams while the GPU computes.
    buffer_share: of the usual sizes of buffers; below 1 after an attempt ran out of memory.
    shape: of the model, from its config; None if the config lacks a number.
    """
    zero: dict[str, Any] = {
        "stage": zero_stage,
        # wrong gradients in ZeRO 2: DeepSpeed#4298, #5294
        "overlap_comm": overlaps and zero_stage == 3,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    }
    if zero_stage == 3:
        live = live_parameters(shape)
        zero |= {
            "sub_group_size": SUB_GROUP,
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_max_live_parameters": live,
            "stage3_max_reuse_distance": live,
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
        "zero_optimization": with_smaller_buffers(zero, buffer_share),
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed compiles its CPU Adam at startup
        "steps_per_print": None,
    }
    if precision == "bf16":
        value |= {
            # ZeRO 1 otherwise keeps bf16 gradients of all parameters next to the fp32 ones
            "bf16": {"enabled": True, "immediate_grad_update": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "communication_data_type": "fp32",  # the default copies and sums gradients in bf16
        }
        if zero_stage < 3:
            # ZeRO 2 otherwise divides by the ranks in bf16; both settings all-reduce each bucket
            value["zero_optimization"]["reduce_scatter"] = False
    return value


def with_smaller_buffers(zero: dict[str, Any], share: float) -> dict[str, Any]:
    """The settings of ZeRO with this share of the usual elements in its buffers."""
    if share == 1:
        return zero
    return {
        name: max(1, int(share * value)) if name in BUFFERS else value
        for name, value in zero.items()
    }


def parameter_groups(model: "Module", weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: norms and biases have no weight decay. ZeRO repeats its work per group."""
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if len(full_shape(p)) > 1 and weight_decay]
    others = [p for p in trained if len(full_shape(p)) <= 1 or not weight_decay]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Engine:
    """The model in training, on all ranks."""

    def __init__(
        self,
        model: "Module",
        coordinates: RankCoordinates,
        *,
        zero_stage: int,
        precision: Precision,
        weight_decay: float,
        offload: str = "none",
        clip: float = CLIP,
        overlaps: bool = False,
        buffer_share: float = 1,
    ) -> None:
        import deepspeed
        import torch

        from finetune_trainer.engine.objective import Objective

        # In bf16 without ZeRO, DeepSpeed keeps no readable state; ZeRO 1 computes the same sums.
        self.zero_stage = max(1, zero_stage) if precision == "bf16" else zero_stage
        self.coordinates = coordinates
        self.precision = precision
        self._clip = clip
        self.model = model
        self.objective = Objective(model)
        placement.complete(self.objective)
        groups = parameter_groups(model, weight_decay)
        adam = torch.optim.AdamW(
            groups,
            lr=0.0,
            betas=BETAS,
            eps=EPSILON,
            fused=True,  # also on the host: ten times as fast there as a loop over operations
        )
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=self.objective,
            optimizer=adam,
            config=configuration(
                zero_stage=self.zero_stage,
                precision=precision,
                offload=offload,
                ranks=coordinates.ranks,
                clip=clip if self.zero_stage else 0.0,  # see `step`
                overlaps=overlaps,
                buffer_share=buffer_share,
                shape=ModelShape.of(self.objective.config.to_dict(), None),
            ),
        )
        if self.zero_stage == 0 and coordinates.ranks == 1:
            self._engine.enable_backward_allreduce = False  # would copy all gradients twice
        # The optimizers of ZeRO hold flat partitions; without ZeRO, Adam holds the parameters.
        self._adam = adam if self.zero_stage == 0 else self._optimizer.optimizer
        self.device = torch.device(self._engine.device)
        self.start_at(0)

    # --- one step --------------------------------------------------------------------------------

    def predict(self, batch: MicroBatch, prompt_weight: float) -> "Predicted":
        """Σ w·nll for the backward pass, nll [n] of each target, whether argmax is right [n]."""
        from finetune_trainer.engine.objective import arguments

        module = self._engine if self.model.training else self.objective
        found: Predicted = module(*arguments(batch, prompt_weight, self.device))
        return found

    @property
    def compute_path(self) -> "ComputePath":
        """The compute path, which determines the layout of micro-batches."""
        return self.objective.compute_path

    def backward(self, loss: "Tensor", *, is_last: bool) -> None:
        """Add the gradient of one micro-batch; the last one of a step starts the reduction."""
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
        """Clip as DeepSpeed does in ZeRO 1 to 3, with a norm in float64 on CPUs.

        A CPU adds long float32 sums one by one and loses the fifth digit, so that one rank and two
        ranks would differ.
        """
        import torch

        wide = torch.float64 if self.device.type == "cpu" else None
        gradients = [it.grad for it in self._parameters if it.grad is not None]
        norms = [torch.linalg.vector_norm(gradient, dtype=wide) for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        torch.nn.utils.clip_grads_with_norm_(self._parameters, self._clip, norm.float())
        return norm

    def gradient(self, parameter: "Parameter") -> "Tensor":
        """The full reduced gradient, between the last `backward` and `step`. All ranks together."""
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
        """Whether `own` is true on any rank."""
        import torch

        value = torch.tensor([float(own)], dtype=torch.float64, device=self.device)
        return bool(self.sum(value).item())

    def least(self, own: float) -> float:
        """The smallest value of all ranks."""
        import torch

        value = torch.tensor([own], dtype=torch.float64, device=self.device)
        return float(self.gather(value).min())

    def gather(self, values: "Tensor") -> "Tensor":
        """[ranks, ...]: the values of all ranks, which have the same shape."""
        import torch

        found = [torch.empty_like(values) for _ in range(self.coordinates.ranks)]
        torch.distributed.all_gather(found, values)
        return torch.stack(found)

    def barrier(self) -> None:
        import torch

        self.sum(torch.zeros(1, dtype=torch.float64, device=self.device)).item()

    # --- state -----------------------------------------------------------------------------------

    def parameters(self) -> Iterator[tuple[str, "Parameter"]]:
        """The trained parameters, in the same order on all ranks; a tied one once."""
        return (pair for pair in self.model.named_parameters() if pair[1].requires_grad)

    def shape(self, parameter: "Parameter") -> tuple[int, ...]:
        """The shape of the full parameter, which ZeRO 3 partitions."""
        return full_shape(parameter)

    def read_weights(self, parameter: "Parameter") -> "Tensor":
        """The full fp32 master weights; of a frozen parameter, its weights. All ranks together."""
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        if not parameter.requires_grad:  # it has no master weights
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.zero_stage == 3):
                return parameter.detach().clone()
        found: Tensor = (
            parameter.data if self.zero_stage == 0 else safe_get_full_fp32_param(parameter)
        )
        return found.detach()

    @property
    def optimizer(self) -> Any:
        """DeepSpeed's optimizer, for `fragments`."""
        return self._optimizer

    def adam_state(self, parameter: "Parameter") -> dict[str, "Tensor"]:
        """The optimizer's state of a parameter; only for ZeRO 0, which has no partitions."""
        found: dict[str, Tensor] = self._adam.state[parameter]
        return found

    def start_at(self, step: int) -> None:
        """Initialize Adam's state as after `step` steps, with moments of zero, in place.

        DeepSpeed links the states after the first step of the first parameter group, and would
        never find those of the second group, so that they are linked here.
        """
        import torch

        if self.zero_stage == 3:  # it puts its partitions into the groups only during a step
            tensors = list(self._optimizer.fp32_partitioned_groups_flat)
        else:
            tensors = [t for group in self._adam.param_groups for t in group["params"]]
        for tensor in tensors:
            state = self._adam.state[tensor]
            state["step"] = torch.tensor(float(step), device=tensor.device)
            for key in MOMENTS:
                if key in state:  # new ones would need 8 more bytes per parameter for a moment
                    state[key].zero_()
                else:
                    state[key] = torch.zeros_like(tensor)
        if self.zero_stage in {1, 2}:
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()
