"""Inference with a published model: one sequence, with the key-value cache of transformers."""

import gc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_api.errors import FailureError
from finetune_api.outcome import Outcome
from finetune_data.confined.outcomes import confined_outcome
from finetune_data.confined.sections import GIB
from finetune_data.models.base_models import CONFIG, read_json, text_settings
from finetune_trainer.base_check.check import checking, read_base
from finetune_trainer.engine import lora
from finetune_trainer.engine.loading import load_model, load_on_meta

if TYPE_CHECKING:
    from torch.nn import Module


Logits = npt.NDArray[np.float64]

SCORED_AT_ONCE = 64  # tokens whose log probabilities, in 64 bits, are in memory
CHECK_SECONDS, CHECK_BYTES = 40.0, 2 * GIB
SECONDS_A_TENSOR = 0.002  # of a model on meta tensors, on a slow CPU


class TokenScore(NamedTuple):
    """The natural log probabilities of a token of a prompt, and of the likeliest tokens there."""

    logprob: float
    likeliest: dict[int, float]


def check_loadable(folder: Path, name: str) -> None:
    """Load the model without its weights in a confined process, before it is loaded here.

    name: for messages. Raises FailureError for a model whose configuration does not fit its weights
    or needs too much time or memory.
    """
    import torch  # noqa: F401 - the confined process has what was imported before it
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    def work() -> Outcome:
        try:
            tensors = len(read_base(folder).tensors)
            seconds = CHECK_SECONDS + tensors * SECONDS_A_TENSOR
            with checking(name, seconds, CHECK_BYTES).at():
                load_on_meta(folder, "fp32")
        except FailureError as error:
            return Outcome(failure=error.failure)
        return Outcome()

    outcome = confined_outcome(work, limits_data=False, is_quiet=True)
    if outcome.failure is not None:
        raise FailureError(outcome.failure)


class CausalModel:
    """A causal language model on the first GPU or the CPU, in the precision of its config."""

    def __init__(self, folder: Path, adapter_folder: Path | None = None, *, cpu: bool) -> None:
        """Load the model in `folder`; adapter_folder: LoRA weights to merge into it."""
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        # transformers warns about how peft calls it
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        config = text_settings(read_json(folder / CONFIG))
        dtype = config.get("dtype") or config.get("torch_dtype")
        model = load_model(folder, "bf16" if dtype in {"bfloat16", "float16"} else "fp32")
        if adapter_folder is not None:
            model = lora.merge(model, adapter_folder)
        self.device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
        self._model: Module | None = model.to(self.device).eval()
        self._cache: Any = None

    def begin(self, tokens: Sequence[int]) -> Logits:
        """Start a new sequence with `tokens` and return the logits of the next token."""
        self._cache = None
        return self._logits(tokens)

    def score(self, tokens: Sequence[int], count: int) -> tuple[list[TokenScore], Logits]:
        """Start a new sequence with `tokens`, and return the score of each token but the first.

        count: of likeliest tokens. The second value is the logits of the next token.
        """
        import torch

        self._cache = None
        with torch.inference_mode():
            logits = self._forward(tokens)[0]
            scores: list[TokenScore] = []
            for start in range(0, len(tokens) - 1, SCORED_AT_ONCE):
                follower = torch.tensor([*tokens[start + 1 : start + 1 + SCORED_AT_ONCE]])
                logs = logits[start : start + len(follower)].double().log_softmax(-1)
                own = logs.gather(1, follower.to(self.device)[:, None])[:, 0].tolist()
                top = logs.topk(min(count, logs.shape[1]), dim=-1)
                scores += [
                    TokenScore(logprob, dict(zip(names, values, strict=True)))
                    for logprob, names, values in zip(
                        own, top.indices.tolist(), top.values.tolist(), strict=True
                    )
                ]
            last: Logits = logits[-1].double().cpu().numpy()
        return scores, last

    def follow(self, token: int) -> Logits:
        """Append a token and return the logits of the next one."""
        return self._logits([token])

    def close(self) -> None:
        """Release the memory of the model. It cannot be used any more."""
        import torch

        self._cache = self._model = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _logits(self, tokens: Sequence[int]) -> Logits:
        import torch

        with torch.inference_mode():
            found: Logits = self._forward(tokens)[0, -1].double().cpu().numpy()
        return found

    def _forward(self, tokens: Sequence[int]) -> Any:
        """The logits of all these tokens, which continue the cached ones."""
        import torch

        assert self._model is not None
        output = self._model(
            input_ids=torch.tensor([list(tokens)], device=self.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        return output.logits
