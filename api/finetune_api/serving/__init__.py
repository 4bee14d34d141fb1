"""Models that the operator serves: their fields, their state, and the names of their objects."""

from finetune_api.serving.objects import PORT_COMPLETIONS, serving_name
from finetune_api.serving.spec import Serve, ServeResources
from finetune_api.serving.status import ServingState, ServingStatus

__all__ = [
    "PORT_COMPLETIONS",
    "Serve",
    "ServeResources",
    "ServingState",
    "ServingStatus",
    "serving_name",
]
