"""The names of the weights of numbered parts: their order, and what is missing among experts."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from finetune_data.models.safetensors_files import StoredTensor

NUMBER = re.compile(r"(\d+)")
EXPERT = re.compile(r"^(.*\bexperts?[._])(\d+)(\..*)$")  # the file, the number, and the weight


def in_number_order(name: str) -> tuple[tuple[bool, int | str], ...]:
    """A key that sorts layer 10 after layer 9."""
    parts = NUMBER.split(name)
    return tuple((part.isdigit(), int(part) if part.isdigit() else part) for part in parts)


def find_gaps(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """What differs among the experts of a layer: missing weights, and weights of other shapes."""
    shapes: dict[tuple[str, str], dict[int, tuple[int, ...]]] = defaultdict(dict)
    numbers: dict[str, set[int]] = defaultdict(set)
    for name, tensor in tensors.items():
        if found := EXPERT.match(name):
            start, number, end = found[1], int(found[2]), found[3]
            shapes[start, end][number] = tensor.shape
            numbers[start].add(number)
    gaps = []
    for (start, end), known in shapes.items():
        usual = Counter(known.values()).most_common(1)[0][0]
        for number in sorted(numbers[start]):
            name = f"{start}{number}{end}"
            if number not in known:
                gaps.append(f"{name} is missing")
            elif known[number] != usual:
                shape, other = list(known[number]), list(usual)
                gaps.append(f"{name} has the shape {shape}, and the others {other}")
    return sorted(gaps, key=in_number_order)
