"""Places each loaded parameter where it stays during training.

In ZeRO 0 to 2, that is the rank's device. In ZeRO 3, the rank keeps only its part, on the device
or, with offloaded parameters, in pinned host memory. DeepSpeed would first copy each whole
parameter to the device and broadcast it; here every rank copies only its part from the
memory-mapped file.
"""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch.nn import Module, Parameter


class Placement(Protocol):
    """Decides where a parameter stays."""

    def is_placed(self, parameter: "Parameter") -> bool:
        """Whether the parameter is where it stays."""

    def place(self, parameter: "Parameter") -> None:
        """Move the parameter, in place, from host memory, which may be a memory-mapped file."""

    def finish(self, model: "Module") -> None:
        """Called once, after the last parameter."""


class OnDevice:
    """Whole parameters on the rank's device, in the precision of the loaded model."""

    def __init__(self) -> None:
        self._device = device()

    def is_placed(self, parameter: "Parameter") -> bool:
        return bool(parameter.device.type == self._device.type)

    def place(self, parameter: "Parameter") -> None:
        parameter.data = parameter.data.to(self._device)

    def finish(self, model: "Module") -> None:
        """There is nothing to finish."""


class Partitioned:
    """The rank's parts of parameters, as DeepSpeed's ZeRO 3 keeps them.

    Placing a parameter involves no other rank.
    """

    def __init__(self, configuration: dict[str, Any], dtype: Any, *, is_frozen: bool) -> None:
        """configuration: of DeepSpeed. dtype: of the training, which all parts have.

        is_frozen: whether training changes none of the parameters.
        """
        import deepspeed
        import torch

        # The module is empty: this only reads the configuration, and replaces torch's `linear` by
        # DeepSpeed's, as for a whole model.
        self._init = deepspeed.zero.Init(
            module=torch.nn.Module(), config_dict_or_path=configuration, dtype=dtype
        )
        if not is_frozen:
            # DeepSpeed copies offloaded parts that it trains into one pinned buffer, and torch does
            # not return pinned memory to the system.
            self._init.pin_memory = False
        self._dtype = dtype

    def is_placed(self, parameter: "Parameter") -> bool:
        return is_partitioned(parameter)

    def place(self, parameter: Any) -> None:
        import torch

        if parameter.is_floating_point():
            parameter.data = parameter.data.to(self._dtype)
        self._init._convert_to_deepspeed_param(parameter)
        parameter.partition()
        # Until `finish`, the parameter has its shape, which transformers reads, but one number.
        parameter.data = torch.zeros(1, dtype=parameter.dtype).expand(parameter.ds_shape)

    def finish(self, model: "Module") -> None:
        """Let all parameters be empty, on the device where DeepSpeed gathers them.

        DeepSpeed sums gradients in the order of `ds_id`, which becomes that of the model instead of
        that of the files.
        """
        import torch

        placed: list[Any] = [p for p in model.parameters() if is_partitioned(p)]
        first = min((parameter.ds_id for parameter in placed), default=0)
        for number, parameter in enumerate(placed, first):
            parameter.ds_id = number
            parameter.data = torch.empty(0, dtype=parameter.dtype, device=self._init.local_device)


def device() -> Any:
    """The device of this rank, once `connect` has joined the ranks."""
    import torch
    from deepspeed.accelerator import get_accelerator

    return torch.device(get_accelerator().current_device_name())


def is_partitioned(parameter: Any) -> bool:
    """Whether this rank holds only a part of the parameter, in ZeRO 3."""
    return hasattr(parameter, "ds_id")


def full_shape(parameter: Any) -> tuple[int, ...]:
    """The shape of the whole parameter, also if this rank holds a part of it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def complete(module: "Module") -> None:
    """Move what is left to the device if the parameters are partitioned: buffers, new adapters.

    DeepSpeed does so for a model without partitioned parameters only.
    """
    if any(is_partitioned(parameter) for parameter in module.parameters()):
        module.to(device())
