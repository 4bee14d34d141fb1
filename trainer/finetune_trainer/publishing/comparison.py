"""Compares a merged model, as it was written, with the adapter over the base model.

A merged weight can also be used in another place, such as a head that is the embeddings, and a
layer can have a form that peft merges in another way than it computes. The published model is then
not the one that was trained. Therefore, a few tokens of the data go through both.

The two never agree exactly: the weights and every result are rounded to the precision of the
training. With n roundings of a relative error of at most u, logits have an error of about u·√n
relative to their size. A layer has about a dozen roundings, of which the weights' are one. In bf16,
sums are computed in fp32; in fp32, each of the k additions of a sum is rounded, too: u·√k.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.errors import FailureError
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer import failures
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.publishing.file_model import FileModel
from finetune_trainer.publishing.percent import Percent
from finetune_trainer.reporting.samples.generation import last_logits

if TYPE_CHECKING:
    from torch import Tensor

ROWS, TOKENS = 4, 16
ROUNDINGS = 12  # in a layer
MARGIN = 4  # times the expected error; peaks of activations have larger ones
NOISE_MARGIN = 4  # times the error that the same two computations have on the base model

Rows = Sequence[list[int]]


@dataclass(frozen=True)
class Reference:
    """Logits [rows, vocabulary] of the tokens after `rows`, in fp32 in host memory."""

    rows: Rows
    adapted: "Tensor"  # of the adapter over the base model
    base: "Tensor"


def choose_rows(split: TokenSplit) -> list[list[int]]:
    """The first tokens of a few examples, spread over the split."""
    indices = sorted({turn * len(split) // ROWS for turn in range(ROWS)})
    return [split.example(index)[0][:TOKENS].tolist() for index in indices if len(split)]


def compute_reference(engine: Engine, rows: Rows) -> Reference:
    """Let the trained model predict the next tokens. All ranks together."""
    import torch

    model: Any = engine.model
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = []
            for context in (nullcontext(), model.disable_adapter()):
                with context:
                    found.append(last_logits(engine, rows).float().cpu())
    finally:
        model.train(was_training)
    return Reference(rows, *found)


def compare(
    reference: Reference,
    engine: Engine,
    folder: Path,
    base: Path,
    progress: Callable[[str], None],
) -> None:
    """Raise FailureError if the model in `folder` does not predict what was trained. On one rank.

    base: the folder of the base model. A model that cannot be computed in this way is published
    with a warning.
    """
    try:
        merged = _logits(folder, engine, reference.rows, progress)
        tolerance = _expected_error(reference.adapted, engine)
        error = _size(merged - reference.adapted)
        if _is_within(error, tolerance):
            return
        # some models, such as mixtures of experts, amplify roundings
        noise = _size(_logits(base, engine, reference.rows, progress) - reference.base)
    except Exception as failure:  # a trained model is not lost because it cannot be checked
        print(
            "warning: the merged model was not compared with the adapter: "
            f"{type(failure).__name__}: {failure}",
            flush=True,
        )
        return
    tolerance = tolerance.maximum(NOISE_MARGIN * noise)
    if not _is_within(error, tolerance):
        moved = _size(reference.adapted - reference.base)
        numbers = (float(it.median()) for it in (error, tolerance, moved))
        raise FailureError(failures.merged_differs(*numbers))


def _size(difference: "Tensor") -> "Tensor":
    """The root mean square over the vocabulary, [rows]."""
    return difference.square().mean(-1).sqrt()


def _expected_error(logits: "Tensor", engine: Engine) -> "Tensor":
    import torch

    config = engine.objective.config
    layers, width = (getattr(config, it, None) or 1 for it in ("num_hidden_layers", "hidden_size"))
    if engine.precision == "bf16":
        unit = torch.finfo(torch.bfloat16).eps / 2
    else:
        unit = torch.finfo(torch.float32).eps / 2 * width**0.5
    scale: float = MARGIN * unit * (ROUNDINGS * (layers + 1)) ** 0.5
    return scale * _size(logits)


def _is_within(error: "Tensor", tolerance: "Tensor") -> bool:
    """Whether most rows are: the experts of a mixture can differ for single tokens."""
    return bool((error <= tolerance).float().mean() > 0.5)


def _logits(folder: Path, engine: Engine, rows: Rows, progress: Callable[[str], None]) -> "Tensor":
    """The logits after the rows, of the model in `folder`: on the GPU, if it has room."""
    import torch

    model = FileModel(folder, engine.model.get_base_model(), engine.precision)
    percent = Percent("comparing the merged model with the adapter", progress)
    try:
        return model.last_logits(rows, engine.device, percent)
    except torch.OutOfMemoryError:
        return model.last_logits(rows, torch.device("cpu"), percent)
