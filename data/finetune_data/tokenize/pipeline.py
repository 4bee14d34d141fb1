"""Reads and tokenizes at the same time: threads encode batches while the next ones are read.

The tokenizers library uses all cores and releases the GIL. While the tokens of one batch become
Python objects, the texts of the others keep the cores busy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from finetune_data.read.examples import Batch
from finetune_data.read.findings import Finding
from finetune_data.tokenize.encoded import Encoded
from finetune_data.tokenize.text_encoder import BATCHES
from finetune_data.tokenize.tokenizer import Tokenizing

WORKERS = BATCHES + 1
AHEAD = 4  # batches in the queue, so that the tokenizer never waits


def encode_batches(
    batches: Iterable[Batch], tokenizer: Tokenizing
) -> Iterator[tuple[Batch, list[tuple[Encoded, ...] | Finding]]]:
    """Each batch with its encoded examples, in order. An error is raised in place of its batch."""
    waiting: list[tuple[Batch, Future[list[tuple[Encoded, ...] | Finding]]]] = []
    with ThreadPoolExecutor(WORKERS, "tokenizer") as pool:
        try:
            for batch in batches:
                waiting.append((batch, pool.submit(tokenizer.encode, batch.examples)))
                if len(waiting) > AHEAD:
                    done, future = waiting.pop(0)
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
