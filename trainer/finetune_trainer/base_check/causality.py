"""Tests with a small copy of the model whether a prediction depends on later tokens.

Settings cannot answer this: encoders have classes for causal language models, and several settings
make a decoder bidirectional. A copy with few layers, narrow ones, and random weights has the same
code and the same settings, and shows it on a CPU in less than a second.
"""

import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeGuard

from finetune_api.errors import FailureError
from finetune_trainer import base_model_failures
from finetune_trainer.base_check.settings import LAYER_COUNTS

LARGEST = 60_000_000  # weights of the copy: 240 MB
LENGTH = 8  # tokens
LAYERS = 2
LAYERS_AT_MOST = 8  # for a model that repeats a pattern of different layers
VOCABULARY = 512
HEADS = 4
EXPERTS = 4
INNER = 256  # of a feed-forward layer
# From the smallest copy to the largest. A state space may have heads of other sizes.
REDUCTIONS = ("few heads", "few attention heads", "flat", "short")
ATTENTION_HEADS = ("num_attention_heads", "num_key_value_heads", "num_kv_heads")
LEAK = 1e-3  # of the effect at the changed position: rounding stays far below it

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
CHOSEN_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts")
GROUPS = ("n_group", "topk_group")
WIDTH = ("dim", "size", "width", "d_model", "n_embd")  # ends of the names of sizes


def check_causality(config: Any) -> str | None:
    """Raise FailureError if the model of a config is not causal.

    config: of transformers, as AutoConfig reads it; it is not changed. Returns why nothing was
    tested, if no small copy of the model can be made.
    """
    problem = "no copy of it is small enough"
    for reduction in REDUCTIONS:
        try:
            leak = _measure(_reduced(config, reduction))
        except Exception as error:  # a size that this architecture derives from another one
            problem = f"{type(error).__name__}: {error!s:.200}"
            continue
        if leak is None:
            continue
        if leak > LEAK:
            raise FailureError(base_model_failures.not_causal(str(config.model_type)))
        return None
    return problem


def _measure(config: Any) -> float | None:
    """The effect of the last token on earlier positions, relative to that on its own.

    None for a copy that is too large.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if sum(parameter.numel() for parameter in empty.parameters()) > LARGEST:
        return None
    text = config.get_text_config()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:  # large enough that every layer changes its input
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        rows = min(int(text.vocab_size), VOCABULARY)
        tokens = torch.randint(4, rows, (1, LENGTH))
        other = tokens.clone()
        other[0, -1] = 4 + (tokens[0, -1] - 3) % (rows - 4)
        first = model(input_ids=tokens, use_cache=False).logits
        second = model(input_ids=other, use_cache=False).logits
    effects = (first - second).abs().amax(dim=-1)[0].double()
    earlier, own = float(effects[:-1].max()), float(effects[-1])
    if not own > 0:
        raise ValueError("the last token has no effect")
    return earlier / own


def _reduced(config: Any, reduction: str) -> Any:
    """A smaller copy of a config. Not every architecture allows every reduction."""
    copy = deepcopy(config)
    text = copy.get_text_config()
    for part in _parts(copy):
        _cut_layers(part)
    _cut_vocabulary(text)
    _cut_experts(text)
    if reduction != "short":
        _cut_inner(text)
    if reduction in {"few heads", "few attention heads"}:
        _cut_width(text, is_any=reduction == "few heads")
    return copy


def _parts(config: Any) -> Iterator[Any]:
    """The config, and the configs in it, such as the one for images."""
    yield config
    for name in type(config).sub_configs:
        part = getattr(config, name, None)
        if part is not None and hasattr(part, "sub_configs"):
            yield from _parts(part)


def _cut_layers(config: Any) -> None:
    count = next((n for name in LAYER_COUNTS if _is_count(n := getattr(config, name, None))), None)
    if count is None:
        return
    lists = {
        name: value
        for name, value in vars(config).items()
        if isinstance(value, list) and len(value) == count
    }
    kept = min(count, LAYERS)
    for value in lists.values():
        kinds = [str(item) for item in value]
        needed = max(kinds.index(kind) for kind in set(kinds)) + 1
        kept = min(max(kept, needed), LAYERS_AT_MOST, count)
    for name in LAYER_COUNTS:
        if _is_count(getattr(config, name, None)):
            setattr(config, name, kept)
    for name, value in lists.items():
        setattr(config, name, value[:kept])


def _cut_vocabulary(config: Any) -> None:
    if config.vocab_size <= VOCABULARY:
        return
    for name in [name for name in vars(config) if name.startswith("vocab_size")]:
        setattr(config, name, VOCABULARY)
    config.vocab_size = VOCABULARY
    for name, value in list(vars(config).items()):
        if name.endswith("token_id") and value is not None:
            setattr(config, name, [0] if isinstance(value, list) else 0)


def _cut_experts(config: Any) -> None:
    for names, most in ((EXPERT_COUNTS, EXPERTS), (CHOSEN_EXPERTS, 2), (GROUPS, 1)):
        for name in names:
            if _is_count(value := getattr(config, name, None)):
                setattr(config, name, min(value, most))


def _cut_inner(config: Any) -> None:
    """Narrow feed-forward layers, except those of state spaces, which other sizes imply."""
    for name, value in list(vars(config).items()):
        is_inner = name.endswith(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"))
        if is_inner and _is_count(value) and not name.startswith("mamba"):
            setattr(config, name, min(value, INNER))


def _cut_width(config: Any, *, is_any: bool) -> None:
    """Keep a few heads with the size that they have. Raises ValueError if nothing is to be cut.

    is_any: whether heads of other parts than the attention are cut as well.
    """
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "hidden_size", None)
    if not _is_count(heads) or not _is_count(width) or heads <= HEADS:
        raise ValueError("it has few heads")
    if width * HEADS % heads == 0:
        narrow = width * HEADS // heads
    elif _is_count(head := getattr(config, "head_dim", None)):
        narrow = head * HEADS
    else:
        raise ValueError("its width is not that of its heads")
    for name, value in list(vars(config).items()):
        if not _is_count(value):
            continue
        if value == width and name.endswith(WIDTH):
            setattr(config, name, narrow)
        elif name in ATTENTION_HEADS or (is_any and "heads" in name):
            setattr(config, name, max(1, HEADS * value // heads))
    config.hidden_size = narrow
    config.num_attention_heads = HEADS


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0
