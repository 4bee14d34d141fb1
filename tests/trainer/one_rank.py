"""A model on one rank without DeepSpeed, for what needs the numbers alone."""

from typing import Any

import torch

from finetune_trainer.engine import Place
from finetune_trainer.microbatch import MicroBatch
from finetune_trainer.objective import Objective, Way, arguments


class OneRank:
    """As `Engine` is seen by a Classifier or by `choose_way`."""

    precision = "fp32"

    def __init__(self, model: Any) -> None:
        self.model = model
        self.objective = Objective(model)
        self.place = Place(0, 0, 1)
        self.device = torch.device("cpu")

    @property
    def way(self) -> Way:
        return self.objective.way

    def predict(self, batch: MicroBatch, prompt_weight: float) -> Any:
        return self.objective(*arguments(batch, prompt_weight, self.device))

    def sum(self, values: Any) -> Any:
        return values

    def any(self, own: bool) -> bool:
        return own
