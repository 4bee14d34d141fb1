"""Imports the training libraries, and loads a model from a folder of safetensors.

transformers builds the model without memory, reads the memory-mapped files, and converts weights
whose layout differs in the files, such as the experts of a mixture. It registers each finished
parameter on its module, where a hook of PyTorch moves it to its place. A rank thus never holds more
of the model in private host memory than the weights of one conversion.
"""

import gc
import importlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.errors import FailureError
from finetune_data.models.skeleton import read_skeleton
from finetune_trainer import base_model_failures
from finetune_trainer.engine.configuration import read_config
from finetune_trainer.engine.deepspeed import Precision, configuration
from finetune_trainer.engine.placement import OnDevice, Partitioned, Placement
from finetune_trainer.engine.weight_names import find_gaps, in_number_order

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

# Masks and frequencies that older versions of transformers saved, and that no model reads.
OLD_BUFFERS = re.compile(r"(attn|attention)\.(bias|masked_bias|causal_mask)$|\.inv_freq$")
CONVERSION = "conversion of the weights"  # in transformers' message if it cannot combine tensors
IN_ORDER = "HF_DEACTIVATE_ASYNC_LOAD"  # of transformers: threads would convert weights far ahead


def import_libraries() -> None:
    """Import the libraries that take seconds, while the launcher downloads.

    It is fastest with garbage collection disabled.
    """
    import deepspeed
    import transformers

    _import_muon()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    deepspeed.logger.setLevel("WARNING")
    # torch warns about DeepSpeed's calls, once for each kind of call
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def _import_muon() -> None:
    """Import the optimizer Muon, which DeepSpeed imports with each engine, without a compiler.

    It is not used. Its functions are compiled at their first call, but torch would already import
    its compiler, inductor, for 3 to 4 s of CPU time, when they are defined.
    """
    from deepspeed.runtime import compiler

    original = compiler.compile
    compiler.compile = lambda: lambda function: function
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.original_muon")
    finally:
        compiler.compile = original


def load_model(folder: Path, precision: Precision) -> "Module":
    """Load a whole model into host memory, and enable garbage collection.

    Loads safetensors only, and no code that came with the model. Raises FailureError
    (BaseModelInvalid) if the weights are not those of the model in config.json.
    """
    model, report = _from_pretrained(folder, precision)
    _check(report, model)
    _finish(model)
    return model


def load_for_training(
    folder: Path,
    precision: Precision,
    *,
    zero_stage: int,
    offload: str,
    ranks: int,
    is_frozen: bool,
    progress: Callable[[int], None] = lambda percent: None,
    inspect: "Callable[[Module], None]" = lambda model: None,
) -> "Module":
    """Load the model's parameters one by one to where they stay, after `connect`.

    In ZeRO 3 this rank keeps only its part of each parameter. Buffers stay in host memory until the
    Engine is built. Enables garbage collection. All ranks call it, but none waits for another.

    is_frozen: whether training changes none of these parameters, because it adds an adapter.
    progress: called with the percentage of the bytes that are loaded. inspect: called with the
    model on the meta device before anything is loaded. Raises FailureError (BaseModelInvalid)
    before it loads anything if the weights are not those of the model in config.json.
    """
    empty = load_on_meta(folder, precision)
    inspect(empty)
    placement: Placement = OnDevice()
    if zero_stage == 3:
        settings = configuration(
            zero_stage=zero_stage, precision=precision, offload=offload, ranks=ranks
        )
        placement = Partitioned(settings, _dtype(precision), is_frozen=is_frozen)
    loading = _Loading(placement, _Plan.of(empty), progress)
    with loading.hooked():
        model, report = _from_pretrained(folder, precision)
    _check(report, model)
    for parameter in model.parameters():
        if _is_loaded(parameter) and not placement.is_placed(parameter):
            placement.place(parameter)
    placement.finish(model)
    _finish(model)
    return model


def load_on_meta(folder: Path, precision: Precision) -> "Module":
    """Load the model without its numbers: names, shapes, and conversions as in a real load.

    It reads only the headers of the weight files. Raises FailureError (BaseModelInvalid) if
    transformers cannot load them into the model of config.json, with the names of the weights.
    """
    try:
        model, report = _from_pretrained(folder, precision, device_map="meta")
    except (FailureError, MemoryError):
        raise
    except Exception as error:  # transformers raises many types for settings of a model
        if "allocate memory" in str(error):
            raise
        raise FailureError(base_model_failures.unloadable_model(error)) from error
    _check(report, model)
    return model


@dataclass(frozen=True)
class _Plan:
    """What the files contain, known without reading a weight."""

    size: int  # bytes of all parameters
    compared: frozenset[tuple[int, ...]]  # shapes of tied weights of which the files have both

    @classmethod
    def of(cls, model: Any) -> "_Plan":
        """model: on the meta device."""
        tied = [
            (model.get_parameter(target), model.get_parameter(source))
            for target, source in model.all_tied_weights_keys.items()
        ]
        sizes = [parameter.numel() * parameter.element_size() for parameter in model.parameters()]
        shapes = {tuple(one.shape) for pair in tied if pair[0] is not pair[1] for one in pair}
        return cls(sum(sizes), frozenset(shapes))


class _Loading:
    """Moves each parameter to its place as soon as it is loaded."""

    def __init__(self, placement: Placement, plan: _Plan, progress: Callable[[int], None]) -> None:
        self._placement = placement
        self._plan = plan
        self._progress = progress
        self._counted: set[int] = set()  # ids of parameters; a tied one is registered twice
        self._done = 0
        self._percent = -1

    @contextmanager
    def hooked(self) -> Iterator[None]:
        from torch.nn.modules.module import register_module_parameter_registration_hook

        former = os.environ.get(IN_ORDER)
        os.environ[IN_ORDER] = "1"
        hook = register_module_parameter_registration_hook(self._place)
        try:
            yield
        finally:
            hook.remove()
            del os.environ[IN_ORDER]
            if former is not None:
                os.environ[IN_ORDER] = former

    def _place(self, module: "Module", name: str, parameter: "Parameter") -> None:
        """Called by PyTorch before `parameter` becomes a parameter of `module`."""
        if not _is_loaded(parameter):
            return
        self._report(parameter)
        # transformers ties these at the end if they are equal, and reads them for that
        is_compared = tuple(parameter.shape) in self._plan.compared
        if not is_compared and not self._placement.is_placed(parameter):
            self._placement.place(parameter)

    def _report(self, parameter: "Parameter") -> None:
        if id(parameter) in self._counted:
            return
        self._counted.add(id(parameter))
        self._done += parameter.numel() * parameter.element_size()
        percent = min(100, 100 * self._done // max(1, self._plan.size))
        if percent != self._percent:
            self._percent = percent
            self._progress(percent)


def _is_loaded(parameter: "Parameter") -> bool:
    """Whether the parameter has its final values: it is no placeholder, and is not to be drawn."""
    return not parameter.is_meta and getattr(parameter, "_is_hf_initialized", False)


def _from_pretrained(folder: Path, precision: Precision, **options: Any) -> tuple[Any, Any]:
    """The model, and transformers' report on the names and shapes of its weights."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        found: tuple[Any, Any] = AutoModelForCausalLM.from_pretrained(
            folder,
            config=read_config(folder),
            generation_config=GenerationConfig(),  # not the file's, which can be invalid
            dtype=_dtype(precision),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report, and an error of `_check`
            output_loading_info=True,
            **options,
        )
    except RuntimeError as error:
        if CONVERSION not in str(error):
            raise
        problem = "the experts of a layer are incomplete or differ in their shapes"
        found_gaps = find_gaps(read_skeleton(folder).tensors)
        raise FailureError(base_model_failures.unfit_weights([problem, *found_gaps])) from error
    return found


def _check(report: dict[str, Any], model: Any) -> None:
    """Raise FailureError for weights that are missing, unknown, or have another shape."""
    missing = sorted(report["missing_keys"], key=in_number_order)
    problems = [f"{name} is missing" for name in missing]
    mismatched = sorted(report["mismatched_keys"])
    problems += [
        f"{name} has the shape {list(found)} instead of {list(expected)}"
        for name, found, expected in mismatched
    ]
    unknown = [name for name in report["unexpected_keys"] if not OLD_BUFFERS.search(name)]
    problems += [f"{name} is not in the model" for name in sorted(unknown, key=in_number_order)]
    if not problems:
        return
    tables = _names_of(model.get_input_embeddings(), model), _names_of(_head(model), model)
    cause: base_model_failures.WeightsCause = "version"
    if missing and set(missing) <= tables[1]:
        cause = "no head"
    elif mismatched and not missing and {name for name, *_ in mismatched} <= tables[0] | tables[1]:
        cause = "vocabulary"
    raise FailureError(base_model_failures.unfit_weights(problems, cause))


def _head(model: Any) -> Any:
    return getattr(model, "get_output_embeddings", lambda: None)()


def _names_of(module: Any, model: Any) -> set[str]:
    """The names of the module's parameters in the model."""
    own = {id(parameter) for parameter in module.parameters()} if module is not None else set()
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if id(parameter) in own}


def _dtype(precision: Precision) -> Any:
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def _finish(model: "Module") -> None:
    model.train()
    gc.freeze()  # the objects of the libraries stay: no collection needs to scan them
    gc.enable()
