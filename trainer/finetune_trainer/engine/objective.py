"""The model and its loss as one module for DeepSpeed: from token ids to Σ w·nll."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune_data.read.examples import COMPLETION
from finetune_trainer.batching.microbatch import MicroBatch
from finetune_trainer.engine import attention, fused_norms
from finetune_trainer.engine.head import Predicted, find_head
from finetune_trainer.engine.lora import is_adapted


@dataclass(frozen=True)
class ComputePath:
    """One of several computations with the same result."""

    is_chunked: bool = False  # logits are computed one chunk of tokens at a time
    is_packed: bool = False  # examples share one row, with `packed_attention`
    is_fused: bool = False  # norms are single kernels, see `fused_norms`


class Objective(nn.Module):  # type: ignore[misc]
    """`forward` returns the same as `Head.forward`, on any compute path."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.head = find_head(self._causal)
        self.compute_path = ComputePath()
        self.own_attention = self._causal.config._attn_implementation

    @property
    def _causal(self) -> Any:
        """The transformers model, without the adapter that may wrap it."""
        return self.model.get_base_model() if is_adapted(self.model) else self.model

    @property
    def config(self) -> Any:
        """The configuration of the language model."""
        return self._causal.config.get_text_config()

    def choose(self, path: ComputePath) -> None:
        """Use `path` from now on. Raises ValueError if the model does not support it."""
        if path.is_chunked and (self.head is None or self._causal.base_model is self._causal):
            raise ValueError("the last layer is not a plain linear layer")
        if path.is_fused and not any(fused_norms.norms(self._causal)):
            raise ValueError("the model has no RMSNorm")
        if path.is_packed != self.compute_path.is_packed:
            name = attention.NAME if path.is_packed else self.own_attention
            self._causal.set_attn_implementation(name)
        if path.is_fused != self.compute_path.is_fused:
            fused_norms.fuse(self._causal, is_fused=path.is_fused)
        self.compute_path = path

    def forward(  # noqa: PLR0917 - DeepSpeed passes positional arguments
        self,
        inputs: Tensor,
        positions: Tensor,
        input_indices: Tensor,
        targets: Tensor,
        weights: Tensor,
        packing: dict[str, Any],
    ) -> Predicted:
        """inputs, positions [rows, width]; input_indices, targets, weights [n]; see `MicroBatch`.

        Padding is on the right, where causal attention never reads it, so no mask is needed, and
        attention is fastest without one. Explicit positions and `use_cache=False` keep transformers
        from deriving its own.
        """
        settings = {"position_ids": positions, "use_cache": False, **packing}
        if self.compute_path.is_chunked:
            assert self.head is not None
            hidden = self._causal.base_model(input_ids=inputs, **settings)[0]
            found: Predicted = self.head(
                hidden.flatten(0, 1).index_select(0, input_indices), targets, weights
            )
            return found
        logits = self.model(input_ids=inputs, **settings).logits
        return of_logits(logits.flatten(0, 1).index_select(0, input_indices), targets, weights)


def of_logits(logits: Tensor, targets: Tensor, weights: Tensor) -> Predicted:
    """The same from whole logits [n, vocabulary], for models with another kind of head."""
    nll = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    with torch.no_grad():
        right = logits.argmax(-1) == targets
    return (weights * nll).sum(), nll.detach(), right


def arguments(batch: MicroBatch, prompt_weight: float, device: torch.device) -> tuple[Any, ...]:
    """The arguments of `Objective.forward`, on the device."""

    def put(values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    packing: dict[str, Any] = {}
    if batch.bounds is not None:
        packing = {"bounds": batch.bounds, "starts": put(np.array(batch.bounds, np.int32))}
    weights = np.where(batch.roles == COMPLETION, 1.0, prompt_weight)
    arrays = (batch.inputs, batch.positions, batch.input_indices, batch.targets, weights)
    return (*(put(values) for values in arrays), packing)
