"""The catalog of the trainer's failures: their codes, messages, and hints.

A message says what happened and where; a hint says what to do. Both appear in the FineTune's
status, and docs/reference/reasons.md lists them.
"""

from collections.abc import Sequence

from finetune_api.names import EXIT_PREEMPTED, Reason
from finetune_api.outcome import Failure

CRASH_HINT = (
    "read the last lines of the rank's log; if it crashes at the same step in every attempt, "
    "check the data and the settings"
)

NO_CHECKPOINT = "there is no checkpoint yet"

# --- the task and its data ------------------------------------------------------------------------


def invalid_task(error: Exception) -> Failure:
    return Failure(code=Reason.INTERNAL, message=f"invalid or missing FINETUNE_TASK: {error}")


def dataset_replaced(found: tuple[int, int], expected: tuple[int, int]) -> Failure:
    """found, expected: numbers of training and of validation examples."""
    return Failure(
        code=Reason.INTERNAL,
        message=f"the dataset has {found[0]} training and {found[1]} validation examples, but the "
        f"task expects {expected[0]} and {expected[1]}: the dataset was replaced after it was "
        "prepared",
        hint="create the fine-tune again",
    )


def unknown_layers(names: Sequence[str], known: Sequence[str]) -> Failure:
    """names: of `method.targets`. known: the names to choose from."""
    return Failure(
        code=Reason.INVALID_SPEC,
        message=f"the base model has no linear layer named {', '.join(names)}",
        hint=f"choose from {', '.join(known)}; or remove method.targets to adapt all but the head",
        param="method.targets",
    )


def shared_layers(names: Sequence[str]) -> Failure:
    """names: of `method.targets`."""
    return Failure(
        code=Reason.INVALID_SPEC,
        message=f"the weights of the layer {', '.join(names)} are also those of another layer, "
        "such as the embeddings, which a merged adapter would change",
        hint="remove the layer from method.targets",
        param="method.targets",
    )


def merged_differs(error: float, tolerance: float, moved: float) -> Failure:
    """All three in logits, as root mean squares over the vocabulary."""
    return Failure(
        code=Reason.BASE_MODEL_INVALID,
        message="the adapter cannot be merged into this base model: on examples of the training "
        f"file, the logits of the merged model differ by {error:.2g} from those of the adapter "
        f"over the base model, which training moved by {moved:.2g}; rounding explains "
        f"{tolerance:.2g}",
        hint="restrict method.targets to the layers of the attention, such as q_proj and v_proj; "
        "or set method.type to full",
        param="method",
    )


def unknown_positive_class(text: str) -> Failure:
    return Failure(
        code=Reason.INVALID_DATA,
        message=f"the positive class {text!r} is not a completion in the training or "
        "validation file. Write it as in the files, with any leading space.",
        param="hyperparameters.classificationPositiveClass",
    )


def foreign_checkpoint(difference: str) -> Failure:
    """difference: "parameter lm_head.weight is missing or incomplete"."""
    return Failure(
        code=Reason.INTERNAL,
        message=f"the checkpoint belongs to another model or training method: {difference}",
        hint="create a fine-tune with another name, or delete the checkpoints of this one",
    )


def other_base(uri: object, saved: str, used: str) -> Failure:
    """saved, used: revisions of the base model, in the checkpoint at uri and in this attempt."""
    return Failure(
        code=Reason.BASE_MODEL_CHANGED,
        message=f"the checkpoint at {uri} was trained from revision {saved} of the base model, but "
        f"this attempt has {used}",
        hint="create the fine-tune again, with another name or, on this machine, another folder: "
        "it then trains from the first step",
        param="model",
    )


# --- the pods -------------------------------------------------------------------------------------


def stopped_before_training() -> Failure:
    return Failure(
        code=Reason.POD_LOST,
        message="the pod received SIGTERM before the training started",
        exit_code=EXIT_PREEMPTED,
    )


def stopped(rank: int, step: int, checkpoint_step: int | None) -> Failure:
    """checkpoint_step: of the last complete checkpoint, if any."""
    return Failure(
        code=Reason.POD_LOST,
        message=f"training stopped after step {step}: a pod received SIGTERM; "
        + (
            f"the checkpoint of step {checkpoint_step} is kept"
            if checkpoint_step
            else NO_CHECKPOINT
        ),
        rank=rank,
        exit_code=EXIT_PREEMPTED,
    )


def superseded(attempt: int, newer: int) -> Failure:
    """attempt: this one, which Kubernetes should have ended before the newer one started."""
    return Failure(
        code=Reason.POD_LOST,
        message=f"attempt {attempt} stopped, because attempt {newer} of this fine-tune has started",
        hint="if the pods of the older attempt still run, their node has lost its connection to "
        "the API server: check the node",
    )


def unresolved_name(host: str, seconds: float, error: Exception) -> Failure:
    return Failure(
        code=Reason.POD_LOST,
        message=f"{host}, the DNS name of rank 0's pod, did not resolve within {seconds:.0f} s "
        f"({error})",
        hint="check that the pod of rank 0 is running and that the cluster's DNS works",
    )


# --- the node ------------------------------------------------------------------------------------

NODE_HINT = (
    "check the node's GPU operator or device plugin, container toolkit, and RuntimeClass (chart "
    "value runtimes[].runtimeClassName); `nvidia-smi` in a pod that requests a GPU must list it"
)


def driver_too_old(driver: str, cuda: str, minimum: str) -> Failure:
    """driver: its version, or the CUDA that it supports. cuda: of PyTorch. minimum: a version."""
    return Failure(
        code=Reason.DRIVER_TOO_OLD,
        message=f"the NVIDIA driver of the node ({driver}) is too old for PyTorch with CUDA "
        f"{cuda}, which requires {minimum} or later",
        hint="upgrade the node's driver; select nodes with a newer one in "
        "spec.scheduling.nodeSelector, for example by the label "
        "nvidia.com/cuda.driver-version.major; or choose a runtime whose image has an older CUDA",
    )


def torch_without_cuda() -> Failure:
    return Failure(
        code=Reason.GPU_UNUSABLE,
        message="PyTorch in the runtime's image is built without CUDA, but the pod trains on GPUs",
        hint="choose a runtime whose image has a PyTorch for CUDA",
        param="runtime",
    )


def unsupported_gpu(
    name: str, capability: tuple[int, int] | None, kernels: Sequence[str]
) -> Failure:
    """kernels: those in PyTorch, such as sm_80."""
    version = ".".join(map(str, capability or ()))
    return Failure(
        code=Reason.GPU_UNUSABLE,
        message=f"the GPU ({name}, compute capability {version}) is not supported by PyTorch in "
        f"the runtime's image, which has kernels for {', '.join(kernels)}",
        hint="select nodes with other GPUs in spec.scheduling.nodeSelector, for example by the "
        "label nvidia.com/gpu.product; or choose a runtime whose image supports this GPU",
    )


def too_few_gpus(visible: int, needed: int) -> Failure:
    return Failure(
        code=Reason.GPU_UNUSABLE,
        message=f"the container sees only {visible} GPUs, but at least {needed} processes use one "
        "each",
        hint=NODE_HINT,
    )


def gpu_failed(local_rank: int, detail: str) -> Failure:
    """detail: CUDA's message."""
    return Failure(
        code=Reason.GPU_UNUSABLE,
        message=f"GPU {local_rank} of the container cannot be used: {detail}",
        hint=NODE_HINT,
    )


def no_driver(detail: str) -> Failure:
    """detail: CUDA's message."""
    return Failure(
        code=Reason.GPU_UNUSABLE,
        message=f"the container sees neither a GPU nor an NVIDIA driver: {detail}",
        hint=NODE_HINT,
    )


def no_gpu_in_container(driver: str, detail: str) -> Failure:
    """driver: the version of the node's driver. detail: CUDA's message."""
    return Failure(
        code=Reason.GPU_UNUSABLE,
        message=f"the node has NVIDIA driver {driver}, but the container cannot use a GPU: "
        f"{detail}",
        hint=NODE_HINT,
    )


# --- the ranks ------------------------------------------------------------------------------------


def nan_loss(step: int, quantity: str, learning_rate: float) -> Failure:
    """The loss or the gradient is no longer a number; a retry would fail at the same step."""
    return Failure(
        code=Reason.NAN_LOSS,
        message=f"the {quantity} became NaN or infinite at step {step} "
        f"(learning rate {learning_rate:.3g})",
        hint="lower learningRateMultiplier or raise warmupRatio; "
        "check the training file for broken examples",
        param="hyperparameters.learningRateMultiplier",
    )


def out_of_host_memory(
    rank: int, detail: str, *, log: Sequence[str], exit_code: int | None = None
) -> Failure:
    """An allocation failed (detail: the error), or the kernel killed the process."""
    return Failure(
        code=Reason.OUT_OF_MEMORY,
        message=f"rank {rank} ran out of host memory: {detail}",
        hint="raise resources.memory, or lower hyperparameters.maxSequenceLength",
        rank=rank,
        exit_code=exit_code,
        exhausted_memory="host",
        log=list(log),
    )


def out_of_gpu_memory(rank: int, detail: str, *, log: Sequence[str]) -> Failure:
    return Failure(
        code=Reason.OUT_OF_MEMORY,
        message=f"rank {rank} ran out of GPU memory: {detail}",
        hint="use more GPUs, a higher deepspeed.zeroStage, or a shorter maxSequenceLength",
        rank=rank,
        exhausted_memory="gpu",
        log=list(log),
    )


def full_disk(rank: int, detail: str, *, log: Sequence[str]) -> Failure:
    """detail: the error, which has the path if the system reports it."""
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} could not write to a full disk: {detail}",
        hint="raise resources.ephemeralStorage, or use nodes or a model cache with more free space",
        rank=rank,
        exit_code=1,
        log=list(log),
    )


def lost_connection(rank: int, detail: str, *, log: Sequence[str]) -> Failure:
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} lost the connection to another rank: {detail}",
        hint="look for the cause in the log of the rank that failed first",
        rank=rank,
        exit_code=1,
        log=list(log),
    )


def exception(rank: int, name: str, detail: str, *, log: Sequence[str]) -> Failure:
    """name: of the exception's class."""
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} failed with {name}: {detail}",
        hint=CRASH_HINT,
        rank=rank,
        exit_code=1,
        log=list(log),
    )


def exited(rank: int, exit_code: int, *, log: Sequence[str]) -> Failure:
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} ended with exit code {exit_code}",
        hint=CRASH_HINT,
        rank=rank,
        exit_code=exit_code,
        log=list(log),
    )


def killed(rank: int, number: int, name: str, *, exit_code: int, log: Sequence[str]) -> Failure:
    """number, name: of the signal. exit_code: as a shell reports it, 128 + number."""
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} was killed by signal {number} ({name})",
        hint=CRASH_HINT,
        rank=rank,
        exit_code=exit_code,
        log=list(log),
    )
