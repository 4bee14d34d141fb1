"""The tensors of a published model, and the weights of the model in memory that each comes from.

transformers names and shapes some weights differently in files than in memory: the experts of a
mixture are one parameter in memory, and one tensor per expert and projection in the files. The
files are those that `save_pretrained` writes, without all weights in memory at one time.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, dtype


@dataclass(frozen=True)
class Conversion:
    """Weights of the model that become tensors of the files together."""

    sources: dict[str, str]  # name of the weight -> the converter's pattern that it matches
    targets: tuple[str, ...]  # names in the files, in the order of the converter's results
    first: str  # the name that the converter builds its results' names from
    model: Any
    converter: Any = None  # of transformers; None: the weight only has another name, if any

    def convert(self, weights: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        """The tensors of the files. weights: by name, all of `sources`."""
        if self.converter is None:
            return dict(zip(self.targets, (weights[name] for name in self.sources), strict=True))
        return dict(zip(self.targets, self.results(weights).values(), strict=True))

    def results(self, weights: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        """What the converter returns, by the names before transformers' renamings."""
        converter = copy.deepcopy(self.converter)
        for name, pattern in self.sources.items():
            converter.add_tensor(self.first, name, pattern, weights[name])
        found = converter.convert(self.first, model=self.model, config=self.model.config)
        return {name: it[0] if isinstance(it, list) else it for name, it in found.items()}


def skeleton(model: Any, precision: "dtype") -> Any:
    """A copy of a model of transformers without memory for its weights, and never partitioned.

    model: without an adapter. It may have one added: its configuration counts.
    """
    import torch

    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"  # the trainer's own has no meaning elsewhere
    if not _is_tied(model):  # transformers ties no weights that differ in the files
        for part in (config, config.get_text_config()):
            if getattr(part, "tie_word_embeddings", False):
                part.tie_word_embeddings = False
    with torch.device("meta"):
        made = type(model)._from_config(config, dtype=precision)
    if hasattr(model, "generation_config"):
        made.generation_config = model.generation_config
    if hasattr(model, "_weight_conversions"):  # those that loading used
        made._weight_conversions = model._weight_conversions
    return made


def _is_tied(model: Any) -> bool:
    """Whether the head is the embeddings. A model without one of the two counts as tied."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    weights = [getattr(module, "weight", None) for module in (head, embeddings)]
    return None in weights or weights[0] is weights[1]


def tied_names(model: Any) -> dict[str, list[str]]:
    """The names of each parameter that has several, by each of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: [name, *found] for found in names.values() for name in found if found[1:]}


def saved_weights(model: Any) -> dict[str, "Tensor"]:
    """The weights that `save_pretrained` saves: of tied ones, the one that transformers expects.

    model: a skeleton. Returns tensors without memory.
    """
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    ignored = set(model._keys_to_ignore_on_save or ())
    state = {name: it for name, it in model.state_dict().items() if name not in ignored}
    found: dict[str, Tensor] = remove_tied_weights_from_state_dict(state, model)
    return found


def conversions(model: Any, weights: Mapping[str, "Tensor"]) -> list[Conversion]:
    """The conversions from memory to files, in the order of the tensors in the files.

    The same steps as `transformers.core_model_loading.revert_weight_conversion`, which converts all
    weights at once. weights: the result of `saved_weights`.
    """
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key

    transforms = _transforms(model)
    if transforms is None:
        return [Conversion({name: name}, (name,), name, model) for name in weights]
    reverse = [transform.reverse_transform() for transform in transforms[::-1]]
    renamings = [it for it in reverse if isinstance(it, WeightRenaming)]
    converters = [it for it in reverse if isinstance(it, WeightConverter)]
    by_pattern = {pattern: it for it in converters for pattern in it.source_patterns}
    found: dict[str, Conversion] = {}
    for name in sorted(weights, key=dot_natural_key):
        target, pattern = _matched(name, converters)
        if pattern is None:
            target = _renamed(name, renamings)
            found[target] = Conversion({name: name}, (target,), target, model)
        else:
            made = Conversion({}, (), target, model, by_pattern[pattern])
            found.setdefault(target, made).sources[name] = pattern
    return [_with_targets(conversion, weights, renamings) for conversion in found.values()]


def _transforms(model: Any) -> list[Any] | None:
    """transformers' conversions from files to memory; None if the model has none."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange

    used: list[Any] | None = getattr(model, "_weight_conversions", None)
    if used is not None:
        return used
    known = get_model_conversion_mapping(model, add_legacy=False)
    return [it for it in known if not isinstance(it, PrefixChange)] or None


def _with_targets(
    conversion: Conversion, weights: Mapping[str, "Tensor"], renamings: list[Any]
) -> Conversion:
    if conversion.converter is None:
        return conversion
    targets = (_renamed(name, renamings) for name in conversion.results(weights))
    return Conversion(
        conversion.sources,
        tuple(targets),
        conversion.first,
        conversion.model,
        conversion.converter,
    )


def _renamed(name: str, renamings: list[Any]) -> str:
    for renaming in renamings:
        name, _ = renaming.rename_source_key(name)
    return name


def _matched(name: str, converters: list[Any]) -> tuple[str, str | None]:
    """The name after the only converter that matches, and the pattern that does."""
    for converter in converters:
        target, pattern = converter.rename_source_key(name)
        if pattern is not None:
            return target, pattern
    return name, None
