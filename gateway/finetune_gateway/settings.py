"""The settings of the gateway: a YAML file that the chart writes, parsed once and frozen."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from finetune_api.catalog import CatalogModel
from finetune_api.limits import DataLimits
from finetune_api.uris import S3Address, S3Uri
from finetune_api.wire import Wire


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0:  # `port` raises ValueError for an invalid one
        raise ValueError("the URL has no valid host and port")
    if "@" in parts.netloc:
        raise ValueError("the URL has a password; use a mounted file")
    return url


ServerUrl = Annotated[
    str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$"), AfterValidator(_check_url)
]


class Backend(Wire):
    """A server that completes prompts with the fine-tuned models of one base model."""

    base: str = Field(min_length=1, max_length=63)  # a name of the catalog
    url: ServerUrl  # ends in /v1
    # The name of the base model itself on the server. Empty: the same as here. Fine-tuned models
    # have their own names there.
    name: str = ""
    # Fields of requests that this server does and others lack, such as best_of and suffix. A field
    # that is not forwarded is refused: a server may ignore it in silence.
    supports: list[str] = Field(default_factory=list)
    key_file: Path | None = None  # a mounted file with the server's API key


class CompletionServer(Wire):
    """The server of `finetune_serving`, which completes with any fine-tuned model below output.

    base_models: those of the catalog that it has under their names, as `finetune serve` starts it.
    """

    url: ServerUrl  # ends in /v1
    secret_file: Path  # a mounted file with the secret that it shares with the gateway
    base_models: list[str] = Field(default_factory=list)


class Settings(Wire):
    """The decisions of an administrator, with the reasons for the defaults."""

    namespace: str = Field(min_length=1)  # of the FineTunes, the Models, and the accounts of keys
    organization: str = ""  # empty: the namespace
    output: str = ""  # the chart's; results and reports are read only below it
    files: S3Address  # uploaded files are below <files>/<namespace>/
    # Bytes of all uploaded files of the namespace: OpenAI's first limit. 0: no limit.
    files_quota_bytes: int = Field(2**30, ge=0)
    data: DataLimits = DataLimits()
    models: list[CatalogModel] = Field(default_factory=list)
    # A folder with the mounted Secret of API keys. Without it, only Kubernetes tokens are accepted.
    keys: Path | None = None
    backends: list[Backend] = Field(default_factory=list)
    # Answers for the fine-tuned models that have neither a Service nor a backend.
    server: CompletionServer | None = None
    # Whether the operator serves the Models that have spec.serve (chart value serving.enabled).
    serves_models: bool = False
    # Seconds for which a request waits for a model that loads: below the 60 s of usual proxies.
    hold_seconds: float = Field(50, ge=0)
    # Whether deleting a model deletes its files, too, as in OpenAI's API.
    deletes_files: bool = False
    # Seconds for which a rights check is remembered: a revoked right is gone after this time.
    review_seconds: float = Field(10, ge=0, le=10)
    # Seconds for which the answer to a cancellation waits for the end of the FineTune.
    cancel_seconds: float = Field(5, ge=0, le=60)
    request_timeout_seconds: float = Field(10, gt=0)  # of a request to the API server
    keep_alive_seconds: float = Field(15, gt=0)  # between the comments of a stream
    # Seconds for which requests in flight may continue after SIGTERM: below the 60 s after which
    # Kubernetes kills the pod.
    shutdown_seconds: float = Field(50, ge=0)
    # Whether keys and tokens may travel without TLS. Only for a proxy with TLS in front of it.
    allow_plain_http: bool = False

    @model_validator(mode="after")
    def _check_server(self) -> Self:
        if self.server is not None and not self.output:
            raise ValueError("server requires output, below which the files of its models are")
        return self

    @property
    def shown_organization(self) -> str:
        return self.organization or self.namespace

    @property
    def files_root(self) -> S3Uri:
        """The prefix of this namespace's uploaded files."""
        return S3Uri.parse(self.files).child(self.namespace, "files")

    def model(self, name: str) -> CatalogModel | None:
        return next((model for model in self.models if model.name == name), None)
