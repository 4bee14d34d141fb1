"""The model and its loss as one module, which DeepSpeed wraps: from token ids to Σ w·nll."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune_data.read.examples import COMPLETION
from finetune_trainer.batching.microbatch import MicroBatch
from finetune_trainer.engine import attention
from finetune_trainer.engine.head import Predicted, find_head
from finetune_trainer.engine.lora import is_adapted


@dataclass(frozen=True)
class ComputePath:
    """How the same numbers are computed."""

    is_chunked: bool = False  # the head's logits a chunk at a time, never the whole
    is_packed: bool = False  # examples behind each other in one row, with attention of our own


class Objective(nn.Module):  # type: ignore[misc]
    """`forward` returns the same as `Head.forward`, in whichever way."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.head = find_head(self._causal)
        self.way = ComputePath()
        self._own_attention = self._causal.config._attn_implementation

    @property
    def _causal(self) -> Any:
        """The model of transformers, also where an adapter is around it."""
        return self.model.get_base_model() if is_adapted(self.model) else self.model

    @property
    def config(self) -> Any:
        """Of the language model."""
        return self._causal.config.get_text_config()

    def choose(self, way: ComputePath) -> None:
        """From now on. Raises ValueError where the model doesn't offer what that needs."""
        if way.is_chunked and (self.head is None or self._causal.base_model is self._causal):
            raise ValueError("its last layer is not a plain linear one")
        if way.is_packed != self.way.is_packed:
            name = attention.NAME if way.is_packed else self._own_attention
            self._causal.set_attn_implementation(name)
        self.way = way

    def forward(  # noqa: PLR0917 - DeepSpeed passes them on
        self,
        inputs: Tensor,
        positions: Tensor,
        places: Tensor,
        targets: Tensor,
        weights: Tensor,
        packing: dict[str, Any],
    ) -> Predicted:
        """inputs, positions [rows, width]; places, targets, weights [n]; see `MicroBatch`.

        Padding stands on the right, where causal attention never looks: no mask is needed, and
        without one attention is at its fastest. Explicit positions and `use_cache=False` keep
        transformers from guessing.
        """
        settings = {"position_ids": positions, "use_cache": False, **packing}
        if self.way.is_chunked:
            assert self.head is not None
            hidden = self._causal.base_model(input_ids=inputs, **settings)[0]
            found: Predicted = self.head(
                hidden.flatten(0, 1).index_select(0, places), targets, weights
            )
            return found
        logits = self.model(input_ids=inputs, **settings).logits
        return of_logits(logits.flatten(0, 1).index_select(0, places), targets, weights)


def of_logits(logits: Tensor, targets: Tensor, weights: Tensor) -> Predicted:
    """From whole logits [n, vocabulary], for models whose head is something else."""
    nll = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    with torch.no_grad():
        right = logits.argmax(-1) == targets
    return (weights * nll).sum(), nll.detach(), right


def arguments(batch: MicroBatch, prompt_weight: float, device: torch.device) -> tuple[Any, ...]:
    """Of `Objective.forward`, on the device."""

    def put(values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    packing: dict[str, Any] = {}
    if batch.bounds is not None:
        packing = {"bounds": batch.bounds, "starts": put(np.array(batch.bounds, np.int32))}
    weights = np.where(batch.roles == COMPLETION, 1.0, prompt_weight)
    arrays = (batch.inputs, batch.positions, batch.places, batch.targets, weights)
    return (*(put(values) for values in arrays), packing)
