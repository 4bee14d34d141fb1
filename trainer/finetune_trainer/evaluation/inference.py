"""Inference with a published model: one sequence, with the key-value cache of transformers."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


CHECK_SECONDS, CHECK_BYTES = 40.0, 2 * GIB
SECONDS_A_TENSOR = 0.002  # of a model on meta tensors, on a slow CPU


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
        self._model: Module = model.to(self.device).eval()
        self._cache: Any = None

    def begin(self, tokens: Sequence[int]) -> npt.NDArray[np.float64]:
        """Start a new sequence with `tokens` and return the logits of the next token."""
        self._cache = None
        return self._logits(tokens)

    def follow(self, token: int) -> npt.NDArray[np.float64]:
        """Append a token and return the logits of the next one."""
        return self._logits([token])

    def _logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float64]:
        import torch

        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([list(tokens)], device=self.device),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache = output.past_key_values
        found: npt.NDArray[np.float64] = output.logits[0, -1].double().cpu().numpy()
        return found
