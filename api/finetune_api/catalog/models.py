"""The default catalog: base models under the names of OpenAI's fine-tunes API.

The chart has the same list.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from finetune_api.catalog.partial_spec import PartialSpec
from finetune_api.tasks import BaseModelRef
from finetune_api.uris import parse_model_uri
from finetune_api.wire import Wire


def _check(text: str) -> str:
    parse_model_uri(text)
    return text


class CatalogModel(Wire):
    """A base model that an administrator offers."""

    name: str = Field(min_length=1, max_length=63)
    uri: Annotated[str, AfterValidator(_check)]
    # learningRateMultiplier multiplies this rate. Publishers of open models document it, or an
    # administrator measures it.
    pretraining_learning_rate: float = Field(gt=0, le=1)
    context_length: int = Field(ge=8)
    # A partial spec, below the fields of a request to the gateway: OpenAI's API has no fields for
    # GPUs, LoRA, or a queue. The operator ignores it.
    fine_tune: PartialSpec | None = None

    @property
    def reference(self) -> BaseModelRef:
        """The model as the base of a FineTune."""
        return BaseModelRef(
            name=self.name,
            root=self.name,
            uri=self.uri,
            pretraining_learning_rate=self.pretraining_learning_rate,
            context_length=self.context_length,
        )


def _model(name: str, uri: str, rate: float, context: int) -> CatalogModel:
    return CatalogModel(name=name, uri=uri, pretraining_learning_rate=rate, context_length=context)


CATALOG = (
    _model("ada", "hf://HuggingFaceTB/SmolLM2-360M@main", 0.003, 8192),
    _model("babbage", "hf://HuggingFaceTB/SmolLM2-1.7B@main", 0.0005, 8192),
    _model("curie", "hf://HuggingFaceTB/SmolLM3-3B-Base@main", 0.0002, 65536),
    _model("davinci", "hf://allenai/OLMo-2-1124-7B@main", 0.0003, 4096),
)
