"""One rank: `python -m finetune_trainer.rank.main <work folder>`."""

import gc
import os
import sys
import traceback
from pathlib import Path

from finetune_api.names import ENV_TASK, EXIT_CRASH, EXIT_OK, EXIT_PREEMPTED
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_trainer.errors import Preempted, explain
from finetune_trainer.progress import ProgressTracker, serve
from finetune_trainer.rank.sigterm import SigtermFlag
from finetune_trainer.workdir import WorkDir, replace


def main(folder: Path) -> int:
    """Leaves an outcome in the work folder: the launcher turns it into the pod's."""
    gc.disable()  # while everything is imported: nothing is garbage, and looking takes its time
    work = WorkDir(folder)
    task = TrainTask.model_validate_json(os.environ[ENV_TASK])
    local_rank = int(os.environ["LOCAL_RANK"])
    progress = ProgressTracker(task.attempt, starting_detail=work.fetch_detail)
    stop = SigtermFlag(is_training=lambda: progress.is_ready)
    stop.listen()
    replace(work.listening(local_rank), str(os.getpid()))
    try:
        if local_rank == 0:
            serve(progress, task.progress_port)
        from finetune_trainer.rank.training import run_rank

        outcome = run_rank(task, work, progress, stop)
    except Exception as error:
        if not isinstance(error, Preempted):
            traceback.print_exc()
        failed = Outcome(failure=explain(error, int(os.environ["RANK"])))
        _leave(work, local_rank, failed, progress)
        return EXIT_PREEMPTED if isinstance(error, Preempted) else EXIT_CRASH
    if outcome is not None:
        _leave(work, local_rank, outcome, progress)
    return EXIT_OK


def _leave(work: WorkDir, local_rank: int, outcome: Outcome, progress: ProgressTracker) -> None:
    step = progress.report.resumed_from_step
    work.leave_outcome(local_rank, outcome.replace(resumed_from_step=step))


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's own end would wait for threads of gloo and NCCL whose peers are gone.
    os._exit(code)
