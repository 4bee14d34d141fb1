"""The exceptions of object storage."""

from __future__ import annotations

from typing import Self

from finetune_api.errors import Audience, FailureError
from finetune_api.outcome import Failure
from finetune_storage.messages import ProblemContext, StorageProblem, render


class StorageError(FailureError):
    """S3 refuses a request, lacks an object or does not answer.

    `problem` and `context` say which problem it is; both are None for an error that another
    process reported as a Failure.
    """

    def __init__(
        self,
        failure: Failure,
        for_shell: Failure | None = None,
        *,
        problem: StorageProblem | None = None,
        context: ProblemContext | None = None,
    ) -> None:
        super().__init__(failure, for_shell)
        self.problem = problem
        self.context = context

    @classmethod
    def from_problem(cls, problem: StorageProblem, context: ProblemContext) -> Self:
        """The error of a problem, rendered for both audiences."""
        return cls(
            render(problem, context, Audience.POD),
            render(problem, context, Audience.SHELL),
            problem=problem,
            context=context,
        )

    def about(self, param: str) -> Self:
        pointed = super().about(param)
        pointed.problem, pointed.context = self.problem, self.context
        return pointed


class AlreadyExists(StorageError):  # noqa: N818 - names what happened; callers often expect it
    """The object of a write that must not replace anything exists."""


def changed_error(address: str, endpoint: str) -> StorageError:
    """The object was replaced while it was read. address: an s3:// address, or a path."""
    return StorageError.from_problem(StorageProblem.CHANGED, ProblemContext(address, endpoint))
