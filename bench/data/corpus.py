"""The corpus: 500,000 rows, about 214 MB, created once with the same bytes on each machine."""

from __future__ import annotations

import json
import os
import random
import tempfile
from pathlib import Path

ROWS = 500_000
WORDS = 20_000


def folder() -> Path:
    path = Path(tempfile.gettempdir()) / "finetune-bench"
    path.mkdir(exist_ok=True)
    return path


def words(seed: int = 1) -> list[str]:
    """Return random words; frequent ones are short."""
    source = random.Random(seed)
    return [
        "".join(source.choices("etaoinshrdlucmfwypvbgkjqxz", k=2 + min(9, rank // 60)))
        for rank in range(WORDS)
    ]


def chats(count: int) -> Path:
    """Write conversations of a system message and two turns as JSONL."""
    path = folder() / f"chats-{count}.jsonl"
    if path.exists():
        return path
    source = random.Random(11)
    known = words()
    pool = source.choices(known, [1 / (rank + 3) for rank in range(WORDS)], k=2_000_000)

    def text(shortest: int, longest: int) -> str:
        at = source.randrange(len(pool) - longest)
        return " ".join(pool[at : at + source.randint(shortest, longest)])

    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("w") as file:
        for number in range(count):
            messages = [{"role": "system", "content": f"Customer {number}. {text(5, 20)}."}]
            for _ in range(2):
                messages.append({"role": "user", "content": f"{text(8, 60)}?"})
                messages.append({"role": "assistant", "content": f"{text(10, 120)}."})
            file.write(json.dumps({"messages": messages}) + "\n")
    partial.rename(path)
    return path


def corpus(rows: int = ROWS) -> Path:
    """Write prompts with a separator and completions with a stop sequence as JSONL."""
    path = folder() / f"rows-{rows}.jsonl"
    if path.exists():
        return path
    source = random.Random(7)
    known = words()
    weights = [1 / (rank + 3) for rank in range(WORDS)]
    pool = source.choices(known, weights, k=2_000_000)
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("w") as file:
        for row in range(rows):
            at = source.randrange(len(pool) - 200)
            prompt = " ".join(pool[at : at + source.randint(12, 46)])
            completion = " ".join(pool[at + 90 : at + 90 + source.randint(3, 42)])
            value = {
                "prompt": f"Question {row}: {prompt}\n\n###\n\n",
                "completion": f" {completion} END",
            }
            file.write(json.dumps(value) + "\n")
    partial.rename(path)
    return path
