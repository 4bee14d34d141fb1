"""What the pods get of a Secret: the values of named keys, and nothing else.

The Secret belongs to the users of a namespace. Other keys of it could be settings that change where
credentials come from or which code runs, such as AWS_CONFIG_FILE or PYTHONPATH.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_operator.settings import Settings

# Settings of S3 and of the hub that users choose. A chart can add names (pods.secretKeys).
SECRET_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    names.ENV_ADDRESSING_STYLE,
    "AWS_CA_BUNDLE",
    "HF_TOKEN",
    "HF_ENDPOINT",
)


@dataclass(frozen=True)
class SecretSource:
    """The Secret of a pod. Only the default one may be missing: workload identity replaces it."""

    name: str
    is_required: bool

    def variables(self, settings: Settings, taken: Collection[str]) -> list[dict[str, Any]]:
        """Environment variables for a container. taken: names that the operator sets itself.

        The kubelet skips an optional key that is missing, also if the whole Secret is. It starts
        no container without a required one, and says whether the Secret or the key is missing.
        """
        required = settings.required_secret_keys if self.is_required else []
        keys = dict.fromkeys((*SECRET_KEYS, *settings.secret_keys, *required))
        return [
            self._variable(key, is_optional=key not in required) for key in keys if key not in taken
        ]

    def _variable(self, key: str, *, is_optional: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "key": key}
        if is_optional:
            found["optional"] = True
        return {"name": key, "valueFrom": {"secretKeyRef": found}}


def credentials(finetune: FineTune, secret_name: str) -> SecretSource:
    """The Secret of the FineTune's own namespace. One that the user names must exist."""
    named = finetune.spec.storage is not None and finetune.spec.storage.secret_name is not None
    return SecretSource(secret_name, is_required=named)
