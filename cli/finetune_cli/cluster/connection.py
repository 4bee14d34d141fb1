"""Sends requests with plain dicts to one API server through the official Kubernetes client.

The client handles the login: certificates, tokens, and exec plugins of a kubeconfig, or the service
account of a pod. Its exceptions are converted here to ApiError and UnreachableError.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetune_api.wire import JsonObject
from finetune_cli.cluster.errors import ApiError, UnreachableError
from finetune_cli.cluster.resources import JSON, Query, Resource
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.terminal.errors import CommandError

if TYPE_CHECKING:
    import urllib3


CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
DEFAULT_KUBECONFIG = "~/.kube/config"  # as in kubectl
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Cluster:
    """Requests to one API server. Every method raises ApiError or UnreachableError."""

    def __init__(self, client: Any, namespace: str, *, timeout: float = READ_SECONDS) -> None:
        self._client = client
        self._patience = timeout
        self.namespace = namespace
        self.host = str(client.configuration.host)

    @property
    def finetunes(self) -> Resource:
        return Resource(self, "finetunes", "FineTune")

    @property
    def models(self) -> Resource:
        return Resource(self, "models", "Model")

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: JsonObject | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        """The parsed JSON of the response. body: sent as JSON with `content_type`."""
        headers = {"Accept": accept, "Content-Type": content_type}
        with self._answer(
            method, path, self._patience, query=query, body=body, headers=headers
        ) as answer:
            data = answer.data
        try:
            return json.loads(data)
        except ValueError as error:
            raise CommandError(
                f"the response of {self.host} to {path} is not JSON",
                "check the server address in the kubeconfig: it may belong to a proxy or a login "
                "page; `kubectl version` uses the same address",
            ) from error

    @contextmanager
    def lines(self, path: str, query: Query, seconds: float) -> Iterator[Iterator[bytes]]:
        """The lines of the response as they arrive; UnreachableError after `seconds` of silence."""
        with self._answer("GET", path, seconds, query=query) as answer:
            yield _lines(answer)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        query: Query | None = None,
        body: JsonObject | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        import urllib3
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config.config_exception import ConfigException

        pairs = [(key, _text(value)) for key, value in (query or {}).items()]
        response = None
        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=pairs,
                header_params=dict(headers or {"Accept": "*/*"}),
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*request, _request_timeout=(CONNECT_SECONDS, seconds))
            answer: urllib3.BaseHTTPResponse = response.response
            if not 200 <= answer.status < 300:
                raise ApiError.of(answer.status, answer.data, self.host, self.namespace)
            yield answer
        except ApiException as error:
            # the client's exception for a failed TLS handshake
            raise UnreachableError.of(self.host, str(error.reason or error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise UnreachableError.of(self.host, error) from error
        except ConfigException as error:
            raise _login_failed(error) from error
        finally:
            if response is not None:
                response.response.close()  # a watch may still send data: do not reuse it


def connect(target: ClusterTarget, *, timeout: float = READ_SECONDS) -> Cluster:
    """Log in as kubectl does; in a pod without a kubeconfig, as its service account.

    timeout: seconds to wait for a response.
    """
    import urllib3
    import yaml
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration
    from kubernetes.config.config_exception import ConfigException

    configuration = type.__call__(Configuration)
    try:
        with _logged_errors() as logged:
            namespace = _load(configuration, target)
    except ConfigException as error:
        raise _login_failed(error, target) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CommandError(
            f"cannot read the kubeconfig ({type(error).__name__})",
            "check it with `kubectl config view`",
        ) from error
    if logged:  # the client only logs the error and would continue without credentials
        raise CommandError(
            f"the exec plugin of the kubeconfig failed: {' '.join(logged[0].split())[:300]}",
            "log in to your cluster again; `kubectl config view` shows the plugin's command",
        )
    configuration.retries = False
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the kubeconfig says so
    return Cluster(ApiClient(configuration), target.namespace or namespace, timeout=timeout)


def _load(configuration: Any, target: ClusterTarget) -> str:
    """Fill the configuration; returns the namespace of the context."""
    import os
    from pathlib import Path

    from kubernetes.config import incluster_config, kube_config

    default = os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG
    file = target.kubeconfig or default
    exists = any(Path(part).expanduser().exists() for part in file.split(os.pathsep) if part)
    if not exists and not target.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ:
        incluster_config.load_incluster_config(client_configuration=configuration)
        found = Path(incluster_config.SERVICE_TOKEN_FILENAME).with_name("namespace")
        return found.read_text().strip() if found.exists() else "default"
    if not exists:
        raise CommandError(
            f"there is no kubeconfig at {file}",
            "set --kubeconfig or KUBECONFIG to the file from your cluster's administrator; after "
            '`make demo` or `make up`, run `eval "$(python3 -m devcluster env)"`',
        )
    kube_config.load_kube_config(
        config_file=file,
        context=target.context,
        client_configuration=configuration,
        persist_config=False,
    )
    contexts, active = kube_config.list_kube_config_contexts(file)
    chosen = target.context or active["name"]
    context: JsonObject = next((item["context"] for item in contexts if item["name"] == chosen), {})
    return str(context.get("namespace") or "default")


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """Collects the errors that the client logs, instead of printing them."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    collector = Collector(logging.ERROR)
    logging.getLogger().addHandler(collector)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(collector)


def _login_failed(error: Exception, target: ClusterTarget | None = None) -> CommandError:
    what = " ".join(str(error).split())[:300].removeprefix("Invalid kube-config file. ")
    if target is not None and target.context and f"name {target.context} " in what:
        return CommandError(
            f"the kubeconfig has no context {target.context!r}",
            "list the contexts with `kubectl config get-contexts`",
        )
    return CommandError(f"cannot use the kubeconfig: {what}", "check it with `kubectl config view`")


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for block in answer.stream(65536):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
