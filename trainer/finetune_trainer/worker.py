"""One rank: `python -m finetune_trainer.worker <work folder>`."""

import os
import sys
import traceback
from pathlib import Path

from finetune_api.names import ENV_TASK, EXIT_CRASH, EXIT_OK, EXIT_PREEMPTED
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_trainer.engine import Place
from finetune_trainer.failures import Preempted, explain
from finetune_trainer.progress import Progress, serve
from finetune_trainer.stop import Stop
from finetune_trainer.training import run_worker
from finetune_trainer.work import WorkFolder, replace


def main(folder: Path) -> int:
    """Leaves an outcome in the work folder: the launcher turns it into the pod's."""
    work = WorkFolder(folder)
    task = TrainTask.model_validate_json(os.environ[ENV_TASK])
    place = Place.from_environment()
    progress = Progress(task.attempt, starting_detail=work.fetch_detail)
    stop = Stop(is_training=lambda: progress.is_ready)
    stop.listen()
    replace(work.listening(place.local_rank), str(os.getpid()))
    try:
        if place.local_rank == 0:
            serve(progress, task.progress_port)
        outcome = run_worker(task, place, work, progress, stop)
    except Exception as error:
        if not isinstance(error, Preempted):
            traceback.print_exc()
        work.leave_outcome(place.local_rank, Outcome(failure=explain(error, place.rank)))
        return EXIT_PREEMPTED if isinstance(error, Preempted) else EXIT_CRASH
    if outcome is not None:
        work.leave_outcome(place.local_rank, outcome)
    return EXIT_OK


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's own end would wait for threads of gloo and NCCL whose peers are gone.
    os._exit(code)
