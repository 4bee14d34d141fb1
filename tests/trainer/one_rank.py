"""A model on one rank without DeepSpeed, for tests that only need its numbers."""

from collections.abc import Iterator
from typing import Any

import torch

from finetune_trainer.batching.microbatch import MicroBatch
from finetune_trainer.engine.deepspeed import RankCoordinates
from finetune_trainer.engine.objective import ComputePath, Objective, arguments


class OneRank:
    """The part of `Engine` that ClassScorer, `choose_compute_path`, and `write_model` use."""

    def __init__(self, model: Any, precision: str = "fp32") -> None:
        self.model = model
        self.precision = precision
        self.objective = Objective(model)
        self.coordinates = RankCoordinates(0, 0, 1)
        self.device = torch.device("cpu")

    @property
    def compute_path(self) -> ComputePath:
        return self.objective.compute_path

    def predict(self, batch: MicroBatch, prompt_weight: float) -> Any:
        return self.objective(*arguments(batch, prompt_weight, self.device))

    def sum(self, values: Any) -> Any:
        return values

    def any(self, own: bool) -> bool:
        return own

    def parameters(self) -> Iterator[tuple[str, Any]]:
        return (pair for pair in self.model.named_parameters() if pair[1].requires_grad)

    def shape(self, parameter: Any) -> tuple[int, ...]:
        return tuple(parameter.shape)

    def read_weights(self, parameter: Any) -> Any:
        return parameter.detach().float()
