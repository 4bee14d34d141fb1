"""One rank: `python -m finetune_trainer.worker <work folder>`."""

import gc
import os
import sys
import traceback
from pathlib import Path

from finetune_api.names import ENV_TASK, EXIT_CRASH, EXIT_OK, EXIT_PREEMPTED
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_trainer.failures import Preempted, explain
from finetune_trainer.progress import Progress, serve
from finetune_trainer.stop import Stop
from finetune_trainer.work import WorkFolder, replace


def main(folder: Path) -> int:
    """Leaves an outcome in the work folder: the launcher turns it into the pod's."""
    gc.disable()  # while everything is imported: nothing is garbage, and looking takes its time
    work = WorkFolder(folder)
    task = TrainTask.model_validate_json(os.environ[ENV_TASK])
    local_rank = int(os.environ["LOCAL_RANK"])
    progress = Progress(task.attempt, starting_detail=work.fetch_detail)
    stop = Stop(is_training=lambda: progress.is_ready)
    stop.listen()
    replace(work.listening(local_rank), str(os.getpid()))
    try:
        if local_rank == 0:
            serve(progress, task.progress_port)
        from finetune_trainer.training import run_worker

        outcome = run_worker(task, work, progress, stop)
    except Exception as error:
        if not isinstance(error, Preempted):
            traceback.print_exc()
        failed = Outcome(failure=explain(error, int(os.environ["RANK"])))
        _leave(work, local_rank, failed, progress)
        return EXIT_PREEMPTED if isinstance(error, Preempted) else EXIT_CRASH
    if outcome is not None:
        _leave(work, local_rank, outcome, progress)
    return EXIT_OK


def _leave(work: WorkFolder, local_rank: int, outcome: Outcome, progress: Progress) -> None:
    step = progress.report.resumed_from_step
    work.leave_outcome(local_rank, outcome.replace(resumed_from_step=step))


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's own end would wait for threads of gloo and NCCL whose peers are gone.
    os._exit(code)
