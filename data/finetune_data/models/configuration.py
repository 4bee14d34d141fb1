"""The bounds of a base model's config.json: absurd sizes are refused before a library sees them.

A library makes a list of a billion layers, or a float of a number with 200 digits, and fails late,
or fills the memory. The bounds are far above all known models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

LARGEST = 2**24  # of a size or a number of parts; the largest known vocabulary has 2**20 tokens
MOST = {"layers": 10_000, "experts": 100_000}  # the largest known models have 256 and 512
NUMBERS = 2**63  # larger integers fit into no tensor
LONGEST_LIST = 100_000
# Names of sizes and of numbers of parts, in all architectures of transformers.
_SIZE = re.compile(
    r"(?:(?:^|_)(?:hidden_size|intermediate_size|vocab_size|embedding_size|state_size|head_dim|"
    r"hidden_dim|ffn_dim|n_embd|n_inner|d_model|d_ff|d_kv|d_inner|dim|inner_dim|heads?|"
    r"layers?|experts?|key_value_heads|n_head|n_layer))$"
)
_POSITIVE = re.compile(
    r"^(?:hidden_size|n_embd|d_model|vocab_size|num_hidden_layers|n_layers?|num_layers|"
    r"num_attention_heads|n_head|head_dim)$"
)


def check_bounds(config: Mapping[str, Any], name: str = "config.json") -> None:
    """Raise ValueError, in words, for sizes that no model has. name: of the file."""
    for place, key, value in _settings(config):
        if isinstance(value, (list, dict)) and len(value) > LONGEST_LIST:
            raise ValueError(
                f"{name} has {len(value):,} entries in {place}, more than {LONGEST_LIST:,}"
            )
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int) and abs(value) >= NUMBERS:
            raise ValueError(f"{name} has an absurd number in {place}: {_shown(value)}")
        if _SIZE.search(key):
            _check_size(name, place, key, value)


def _check_size(name: str, place: str, key: str, value: Any) -> None:
    is_needed = _POSITIVE.match(key) is not None
    if isinstance(value, (list, dict)):  # one for each layer, whose numbers are settings as well
        return
    if isinstance(value, str) and not is_needed:  # "norm_layer": "rms"
        return
    part = key.rpartition("_")[2]
    most = MOST.get(part if part.endswith("s") else f"{part}s", LARGEST)
    least = 1 if is_needed else -1  # -1 is none
    if not isinstance(value, (int, float)) or not least <= value <= most:
        bounds = f"expected a number from {least} to {most:,}"
        raise ValueError(f"{name} has {place} {_shown(value)}; {bounds}")


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """All settings with their places and keys. JSON that could be read is not deeper than this."""
    waiting: list[tuple[str, str, Any]] = [("", "", config)]
    while waiting:
        place, key, value = waiting.pop()
        if key:
            yield place, key, value
        if isinstance(value, Mapping):
            prefix = f"{place}." if place else ""
            waiting += [(f"{prefix}{name}"[:200], str(name), item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(place, key, item) for item in value[:LONGEST_LIST]]


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= NUMBERS:
        return f"an integer of {value.bit_length() * 3 // 10 + 1:,} digits"
    return f"{value:,}" if isinstance(value, int) else f"{value!r:.40}"


# Settings that choose code, a package, or a file, wherever they are in a config. Some are read from
# attributes of a parsed config, which has every key of the file as an attribute.
_CODE = re.compile(
    r"implementation|kernel|quantization|compression_config|auto_map|trust_|remote|custom_"
    r"|transformers_weights|_plan$|distributed|name_or_path|adapter|peft|compile|torchscript"
    r"|^(?:torch_)?dtype$|backend",
    re.IGNORECASE,
)


def chooses_code(name: str, value: object) -> bool:
    """Whether a setting of a config can change which code, package, or file is loaded."""
    if not _CODE.search(name):
        return False
    # "d_conv_kernel": 4 is a size, and "use_mamba_kernels": false only turns a package off
    is_size = isinstance(value, (int, float, list)) and not isinstance(value, bool)
    return not (is_size or value is False or value is None)


def without_code(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config without those that choose code, and without private ones."""
    return {
        name: _cleaned(value)
        for name, value in settings.items()
        if not name.startswith("_") and not chooses_code(name, value)
    }


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_code(value)
    return [_cleaned(item) for item in value] if isinstance(value, list) else value
