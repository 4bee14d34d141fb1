"""A model in memory: its weights, and its tokenizer in a confined process."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from finetune_api.errors import FailureError
from finetune_data.models.base_models import model_positions
from finetune_data.models.remote_model import WEIGHTS
from finetune_data.tokenize.confined_tokenizer import ConfinedTokenizer
from finetune_data.tokenize.end_tokens import vocabulary_size
from finetune_serving.completion.local_model import LocalModel
from finetune_serving.models.addresses import ModelAddress
from finetune_serving.models.files import ModelFiles
from finetune_serving.problems import unusable
from finetune_storage.errors import StorageError
from finetune_web.problems import Problem, unavailable

logger = logging.getLogger(__name__)


class LoadedModel:
    """One model. Only the thread that made it uses it: its processes end with that thread."""

    def __init__(
        self,
        address: ModelAddress,
        folder: Path,
        *,
        cpu: bool,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Load the model in `folder`. Raises FailureError, and what transformers raises."""
        from finetune_trainer.evaluation.inference import CausalModel, check_loadable

        self._on_close = on_close
        self.files = LocalModel(address.name, folder)
        self.context = model_positions(folder)
        self.vocabulary = vocabulary_size(folder)
        _check_memory(address, folder, cpu=cpu)
        self.tokenizer = ConfinedTokenizer(folder, address.name)
        check_loadable(folder, address.name)
        self.model = CausalModel(folder, cpu=cpu)

    def close(self) -> None:
        """Release the memory. The process of the tokenizer ends with the last reference."""
        self.model.close()
        del self.tokenizer
        self._on_close()


def load(address: ModelAddress, files: ModelFiles, *, cpu: bool) -> LoadedModel:
    """Download, verify, and load a model. Raises Problem."""
    try:
        folder = files.provide(address)
        try:
            return LoadedModel(address, folder, cpu=cpu, on_close=lambda: files.release(folder))
        except BaseException:
            files.release(folder)
            raise
    except Problem:
        raise
    except StorageError as error:
        raise unavailable(f"The model '{address.name}' cannot be read: {error}") from error
    except ConnectionAbortedError as error:
        raise unavailable("The server restarts. Repeat the request.", 1) from error
    except FailureError as error:
        raise unusable(f"The model '{address.name}' cannot be used: {error}.") from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, MemoryError) as error:
        logger.warning("the model %s cannot be loaded", address.name, exc_info=error)
        raise unusable(_explained(address, error)) from error


def loader(files: ModelFiles, *, cpu: bool) -> Callable[[ModelAddress], LoadedModel]:
    return lambda address: load(address, files, cpu=cpu)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error)


def _explained(address: ModelAddress, error: Exception) -> str:
    if is_out_of_memory(error):
        return (
            f"The model '{address.name}' does not fit into memory next to the other loaded models. "
            "Lower --keep, or use a larger machine."
        )
    what = " ".join(str(error).split())[:300]
    return f"The model '{address.name}' cannot be loaded: {what}."


def _check_memory(address: ModelAddress, folder: Path, *, cpu: bool) -> None:
    """Raise Problem for weights that are larger than the whole memory."""
    import torch

    needed = sum(path.stat().st_size for path in folder.glob(WEIGHTS))
    has_gpu = torch.cuda.is_available() and not cpu
    total = torch.cuda.mem_get_info()[1] if has_gpu else _memory()
    if needed > total:
        where = "the GPU" if has_gpu else "this machine"
        raise unusable(
            f"The weights of the model '{address.name}' have {needed / 2**30:,.1f} GiB, but "
            f"{where} has only {total / 2**30:,.1f} GiB of memory. Use a larger one."
        )


def _memory() -> int:
    """The memory of the machine, or the limit of the container."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limit = Path("/sys/fs/cgroup/memory.max")
    with contextlib.suppress(OSError, ValueError):  # no limit
        found.append(int(limit.read_text()))
    return min(found)
