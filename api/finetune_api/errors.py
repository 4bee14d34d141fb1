"""The exception that carries a Failure."""

from enum import StrEnum
from typing import Self

from finetune_api.outcome import Failure


class Audience(StrEnum):
    """The readers of a message: they change settings in different places."""

    POD = "pod"  # the message is published in a status; settings are in Kubernetes objects
    SHELL = "shell"  # the message is printed on this machine; settings are in its environment


class FailureError(Exception):
    """An error that `failure` explains: a code, one plain sentence, and the field of the spec."""

    def __init__(self, failure: Failure, for_shell: Failure | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self._for_shell = for_shell or failure

    @classmethod
    def of(
        cls,
        code: str,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        shell_hint: str | None = None,
    ) -> Self:
        """Build the error.

        code: one of names.Reason. shell_hint: the hint for Audience.SHELL where it differs.
        """
        failure = Failure(code=code, message=message, param=param, hint=hint)
        return cls(failure, failure.replace(hint=shell_hint) if shell_hint else None)

    def failure_for(self, audience: Audience) -> Failure:
        """The failure in the words of an audience. `failure` is the one for pods."""
        return self._for_shell if audience is Audience.SHELL else self.failure

    def about(self, param: str) -> Self:
        """The same error, pointing at a field of the spec unless it already does."""
        param = self.failure.param or param
        return type(self)(self.failure.replace(param=param), self._for_shell.replace(param=param))
