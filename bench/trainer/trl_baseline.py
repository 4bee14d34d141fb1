"""TRL's SFTTrainer on the workload, in an environment without this project's packages.

`python trl_baseline.py FOLDER MODE HEAD STEPS BATCH` prints one JSON line at the end, with the
seconds and the real tokens of each step. HEAD `fused` is TRL's own head: in TRL 1.16, `nll` and
`chunked_nll` are the same. HEAD `whole` is the Trainer of transformers on the batches of TRL, with
full logits in memory, as in older versions of TRL. `--device cuda` trains in bf16 autocast.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

MODES: dict[str, dict[str, object]] = {
    "padded": {},
    "group_by_length": {"train_sampling_strategy": "group_by_length"},
    "padding_free": {"padding_free": True, "max_length": None},
    "packing": {"packing": True, "packing_strategy": "bfd"},
}
OF_TRL = ("padding_free", "packing", "packing_strategy", "max_length")


def main(
    folder: Path,
    mode: str,
    head: str,
    steps: int,
    batch: int,
    *,
    length: int,
    accumulation: int,
    device: str,
) -> None:
    """Measure all steps; the caller drops the warm-up. length: tokens of a row."""
    import numpy as np
    import torch
    import transformers
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    tokens, roles, offsets = (np.load(folder / f"{n}.npy") for n in ("tokens", "roles", "offsets"))
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for begin, end in pairwise(offsets):
        ids, marks = tokens[begin:end], roles[begin:end]
        rows["input_ids"].append(ids.tolist())
        rows["labels"].append(np.where(marks == 2, ids, -100).tolist())
    model = AutoModelForCausalLM.from_pretrained(
        folder / "model", attn_implementation="sdpa", dtype=torch.float32
    )
    settings = {
        "output_dir": str(folder / "trl"),
        "use_cpu": device == "cpu",
        "bf16": device != "cpu",
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "gradient_checkpointing": False,
        "max_length": length,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 10_000,
        "dataloader_num_workers": 0,
        "seed": 1,
        **MODES[mode],
    }
    collated: list[int] = []
    ends: list[float] = []

    class StepEnds(TrainerCallback):
        def on_step_end(self, *args: object, **named: object) -> None:
            ends.append(time.time())

    dataset = Dataset.from_dict(rows)
    trainer_class, config_class = SFTTrainer, SFTConfig
    named = {"processing_class": AutoTokenizer.from_pretrained(folder / "model")}
    if head == "whole":
        trainer_class, config_class = Trainer, TrainingArguments
        for name in OF_TRL:
            settings.pop(name, None)
        settings["remove_unused_columns"] = False  # the lengths of packed examples are needed
        model.config.use_cache = False
        if mode == "packing":
            dataset = pack_dataset(dataset.shuffle(seed=1), length, "bfd")
        named["data_collator"] = DataCollatorForLanguageModeling(
            pad_token_id=0, padding_free=mode in {"packing", "padding_free"}
        )
    trainer = trainer_class(
        model=model,
        args=config_class(**settings),
        train_dataset=dataset,
        callbacks=[StepEnds()],
        **named,
    )
    collate = trainer.data_collator

    def counting(examples: list[dict[str, object]]) -> object:
        found = collate(examples)
        mask = found.get("attention_mask")
        collated.append(int(found["input_ids"].numel() if mask is None else mask.sum()))
        return found

    trainer.data_collator = counting
    trainer.train()
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    seconds = [end - begin for begin, end in pairwise(ends)]
    starts = range(accumulation, steps * accumulation, accumulation)
    values = {
        "seconds": seconds,
        "tokens": [sum(collated[start : start + accumulation]) for start in starts],
        "peak_mb": peak,
        "first": ends[0],
        "gpu_peak": torch.cuda.max_memory_allocated() if device != "cpu" else peak * 1e6,
        "attention": model.config._attn_implementation,
        "versions": {name: version(name) for name in ("trl", "transformers", "torch")},
    }
    print(json.dumps(values))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train with TRL on the workload in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("head", choices=("fused", "whole"))
    parser.add_argument("steps", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    main(**vars(parser.parse_args()))
