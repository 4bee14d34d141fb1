"""Reading and tokenising at once: a thread encodes one batch while the next one is read.

The tokenizers use all cores and hold no lock of Python's, so what Python does meanwhile is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from finetune_data.examples import Batch
from finetune_data.findings import Finding
from finetune_data.tokenization import Encoded, ExampleTokenizer

AHEAD = 2  # batches that wait for the tokenizer, so that it never waits


def encode_batches(
    batches: Iterable[Batch], tokenizer: ExampleTokenizer
) -> Iterator[tuple[Batch, list[Encoded | Finding]]]:
    """Each batch with its encoded examples, in order. Errors come where the batch would."""
    waiting: list[tuple[Batch, Future[list[Encoded | Finding]]]] = []
    with ThreadPoolExecutor(1, "tokenizer") as pool:
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
