"""`python -m bench.data`: time, memory, tokenizer rate, and packing, each with its target."""

from __future__ import annotations

import argparse
import time
from typing import Any

from bench.data.corpus import ROWS, chats, corpus
from bench.data.tokens import CHATS, tokenizer_folder
from bench.machine import Measured, median, refuse_when_loaded, run_fresh, save, spread

BASE_MB, BYTES_A_ROW = 60, 32
CONTEXT, EXAMPLES = 2048, 100_000
MEAN, MEDIAN = 154, 119  # tokens of an Alpaca-like example, log-normal

Row = tuple[str, str, str, bool]  # name, measured, target, is reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--force", action="store_true", help="run on a busy machine as well")
    options = parser.parse_args()
    path = corpus()
    half = corpus(ROWS // 2)
    tokenizer_folder()
    corpus(EXAMPLES)
    chats(CHATS)
    refuse_when_loaded(is_forced=options.force)
    found: dict[str, list[Measured]] = {}
    for number in range(options.repeats):
        for name, module, argument in (
            ("ours", "bench.data.subject", str(path)),
            ("old", "bench.data.pandas_baseline", str(path)),
            ("half", "bench.data.subject", str(half)),
            ("pipeline", "bench.data.tokens", "rows"),
            ("raw", "bench.data.tokens", "raw rows"),
            ("chats", "bench.data.tokens", "chats"),
            ("raw chats", "bench.data.tokens", "raw chats"),
            ("rendered chats", "bench.data.tokens", "rendered chats"),
        ):
            print(f"round {number + 1} of {options.repeats}: {name}", flush=True)
            found.setdefault(name, []).append(run_fresh(module, argument))
    table, values = evaluate(found)
    print(f"\n{path.stat().st_size / 1e6:.0f} MB, {ROWS:,} rows; medians and ranges")
    for what, measured, wanted, reached in table:
        print(f"  {'ok  ' if reached else 'MISS'}  {what:<44} {measured:<34} {wanted}")
    print(f"written: {save('data', values)}, {draw(found)}")


def evaluate(found: dict[str, list[Measured]]) -> tuple[list[Row], dict[str, Any]]:
    seconds = {name: [one.values["seconds"] for one in runs] for name, runs in found.items()}
    peaks = {name: median([one.peak_mb for one in runs]) for name, runs in found.items()}
    ratio = median(seconds["ours"]) / median(seconds["old"])
    limit = BASE_MB + BYTES_A_ROW * ROWS / 1e6
    growth = (peaks["ours"] - peaks["half"]) * 1e6 / (ROWS // 2)
    tokens = found["raw"][0].values["tokens"]
    rate = median(seconds["raw"]) / median(seconds["pipeline"])
    chat_tokens = found["raw chats"][0].values["tokens"]
    chat_rate = median(seconds["raw chats"]) / median(seconds["chats"])
    rendered_rate = median(seconds["rendered chats"]) / median(seconds["chats"])
    fill, packing = pack_alpaca()
    table: list[Row] = [
        ("all checks, seconds", spread(seconds["ours"]), "", True),
        ("pandas, seconds", spread(seconds["old"]), "", True),
        ("ratio", f"{ratio:.3f}", "at most 0.25", ratio <= 0.25),
        ("peak memory, MB", f"{peaks['ours']:.0f}", f"at most {limit:.0f}", peaks["ours"] <= limit),
        ("pandas, MB", f"{peaks['old']:.0f}", "", True),
        ("growth, bytes per row", f"{growth:.1f}", f"at most {BYTES_A_ROW}", growth <= BYTES_A_ROW),
        ("pipeline, tokens per second", f"{tokens / median(seconds['pipeline']):,.0f}", "", True),
        (
            "plain tokenizers, tokens per second",
            f"{tokens / median(seconds['raw']):,.0f}",
            "",
            True,
        ),
        ("share of the plain rate", f"{rate:.2f}", "at least 0.80", rate >= 0.8),
        ("chats, tokens per second", f"{chat_tokens / median(seconds['chats']):,.0f}", "", True),
        (
            "plain tokenizers on rendered chats, the same",
            f"{chat_tokens / median(seconds['raw chats']):,.0f}",
            "",
            True,
        ),
        ("share of the plain rate", f"{chat_rate:.2f}", "at least 0.80", chat_rate >= 0.8),
        ("share, with transformers' rendering", f"{rendered_rate:.2f}", "", True),
        ("packer's fill at 2,048", f"{fill:.4f}", "over 0.99", fill > 0.99),
        ("packer, seconds for 100,000", f"{packing:.2f}", "under 1", packing < 1),
    ]
    values = {
        "seconds": seconds,
        "peak_mb": peaks,
        "ratio": ratio,
        "bytes_a_row": growth,
        "share_of_raw_rate": rate,
        "share_of_raw_rate_of_chats": chat_rate,
        "share_of_rendered_rate_of_chats": rendered_rate,
        "fill": fill,
        "packing_seconds": packing,
    }
    return table, values


def pack_alpaca() -> tuple[float, float]:
    """Return the fill and the seconds for lengths like those of Alpaca."""
    import numpy as np

    from finetune_trainer.batching.packing import pack

    sigma = np.sqrt(2 * np.log(MEAN / MEDIAN))
    lengths = np.random.default_rng(1).lognormal(np.log(MEDIAN), sigma, EXAMPLES).astype(int)
    lengths = np.clip(lengths, 1, CONTEXT)
    begin = time.perf_counter()
    bins = pack(lengths, CONTEXT)
    seconds = time.perf_counter() - begin
    return float(lengths.sum() / (len(bins) * CONTEXT)), seconds


def draw(found: dict[str, list[Measured]]) -> str:
    """Draw time and memory compared with pandas."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from bench.machine import RESULTS

    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.2))
    pairs = (
        ("seconds", "all checks, 500,000 rows", ("ours", "old"), "s"),
        ("peak", "peak memory", ("ours", "old"), "MB"),
        ("seconds", "tokenizing, 100,000 rows", ("pipeline", "raw"), "s"),
        ("seconds", f"tokenizing, {CHATS:,} chats", ("chats", "raw chats"), "s"),
    )
    labels = {
        "ours": "ours",
        "old": "pandas",
        "pipeline": "pipeline",
        "raw": "plain",
        "chats": "pipeline",
        "raw chats": "plain",
    }
    for axis, (kind, title, names, unit) in zip(axes, pairs, strict=True):
        heights = [
            median(
                [one.peak_mb if kind == "peak" else one.values["seconds"] for one in found[name]]
            )
            for name in names
        ]
        bars = axis.bar([labels[name] for name in names], heights, color=["#4078c8", "#b0b0b0"])
        axis.bar_label(bars, [f"{height:.1f} {unit}" for height in heights])
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.15)
    figure.tight_layout()
    path = RESULTS / "data.png"
    figure.savefig(path, dpi=120)
    return str(path)


if __name__ == "__main__":
    main()
