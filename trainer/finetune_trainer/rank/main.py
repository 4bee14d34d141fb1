"""The entry point of one rank: `python -m finetune_trainer.rank.main <working directory>`."""

import gc
import os
import sys
import traceback
from pathlib import Path

from finetune_api.names import ENV_TASK, EXIT_CRASH, EXIT_OK, EXIT_PREEMPTED
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_trainer.errors import Preempted, failure_from_exception
from finetune_trainer.progress import ProgressTracker, serve
from finetune_trainer.rank.sigterm import SigtermFlag
from finetune_trainer.workdir import WorkDir, replace


def main(folder: Path) -> int:
    """Run the rank, and write its outcome into the working directory for the launcher."""
    gc.disable()  # during the imports, which create no garbage: collections would only take time
    workdir = WorkDir(folder)
    task = TrainTask.model_validate_json(os.environ[ENV_TASK])
    local_rank = int(os.environ["LOCAL_RANK"])
    progress = ProgressTracker(task.attempt, starting_detail=workdir.download_detail)
    sigterm = SigtermFlag(is_training=lambda: progress.is_ready)
    sigterm.install()
    replace(workdir.pid(local_rank), str(os.getpid()))

    def write(outcome: Outcome, *, is_echo: bool = False) -> None:
        step = progress.report.resumed_from_step
        workdir.write_outcome(local_rank, outcome.replace(resumed_from_step=step), is_echo=is_echo)

    try:
        if local_rank == 0:
            serve(progress, task.progress_port)
        from finetune_trainer.rank.lifecycle import run_rank

        outcome = run_rank(task, workdir, progress, sigterm)
    except Exception as error:
        is_preempted = isinstance(error, Preempted)
        if not is_preempted:
            traceback.print_exc()
        found = failure_from_exception(error, int(os.environ["RANK"]))
        write(Outcome(failure=found.failure), is_echo=found.is_echo)
        return EXIT_PREEMPTED if is_preempted else EXIT_CRASH
    if outcome is not None:
        write(outcome)
    return EXIT_OK


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # A regular exit would wait for threads of gloo and NCCL whose peers are gone.
    os._exit(code)
