"""The program of the ranks in `test_generating`; its argument is the output folder.

All ranks run everything; each one writes its completions by ZeRO stage and compute path. They also
compare a merged adapter with what they compute together, as before it is published.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine import attention
from finetune_trainer.engine.deepspeed import Engine, RankCoordinates, connect
from finetune_trainer.engine.objective import ComputePath
from finetune_trainer.publishing.comparison import choose_rows, compare, compute_reference
from finetune_trainer.publishing.weights import write_model
from finetune_trainer.reporting.samples.allowance import Allowance
from finetune_trainer.reporting.samples.generation import make_generator
from finetune_trainer.reporting.samples.prompts import Prompt, choose_prompts
from tests.trainer import support
from tests.trainer.ranks import EXAMPLES, STEPS, adapted_engine, engine_of, run_steps

PROMPTS: list[Prompt] = choose_prompts(support.split_of(EXAMPLES), count=5)
FEW_PASSES = Allowance(passes=3, seconds=0)
COMPUTE_PATHS = {
    "padded": ComputePath(is_chunked=True),
    "packed": ComputePath(is_chunked=True, is_packed=True),
}


def main(out: Path) -> None:
    support.import_libraries()
    attention.register()
    coordinates = RankCoordinates.from_environment()
    connect("cpu")
    found: dict[str, Any] = {}
    engines = [(f"stage {stage}", engine_of(coordinates, stage, "fp32")) for stage in (1, 3)]
    engines.append(("lora", adapted_engine(coordinates, 3)))
    for kind, engine in engines:
        for name, way in COMPUTE_PATHS.items():
            engine.objective.choose(way)
            found[f"{kind} {name}"] = make_generator(engine, lambda: None)(PROMPTS).completions
            short = make_generator(engine, lambda: None, FEW_PASSES)(PROMPTS)
            found[f"short {kind} {name}"] = [short.completions, short.is_spent]
        assert engine.model.training
    found["compared"] = comparisons(engines[2][1], out)
    begin = TrainingState(step=STEPS - 3)
    for kind, engine in [engines[1], ("fresh", engine_of(coordinates, 3, "fp32"))]:
        engine.objective.choose(COMPUTE_PATHS["packed"])
        found[f"losses {kind}"] = run_steps(engine, None, begin)
    (out / f"rank-{coordinates.rank}.json").write_text(json.dumps(found))


def comparisons(engine: Engine, out: Path) -> list[list[float]]:
    """How far a step of training moves the logits, and those of the frozen base model, in ZeRO 3.

    Raises an error if the merged model differs from what was trained.
    """
    support.tiny_llama().save_pretrained(out / f"base-{engine.coordinates.rank}")
    rows = choose_rows(support.split_of(EXAMPLES))
    found = []
    for name, way in COMPUTE_PATHS.items():
        engine.objective.choose(way)
        before = compute_reference(engine, rows)
        run_steps(engine, None, TrainingState(step=STEPS - 2))
        after = compute_reference(engine, rows)
        write_model(engine, out / name, out / "base-0")
        if engine.coordinates.rank == 0:
            compare(after, engine, out / name, out / "base-0", lambda _: None)
        engine.barrier()
        pairs = ((before.adapted, after.adapted), (before.base, after.base))
        found.append([float((one - other).abs().max()) for one, other in pairs])
        assert engine.model.training
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # as `worker`: the interpreter's own end may abort in threads of gloo
