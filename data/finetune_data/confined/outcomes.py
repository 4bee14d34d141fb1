"""The outcome of work in a confined process."""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.outcome import Outcome
from finetune_data.confined.child import ExhaustedError, run_confined


def confined_outcome(
    work: Callable[[], Outcome], *, limits_data: bool = True, is_quiet: bool = False
) -> Outcome:
    """The outcome of `work`; a limit that was exceeded is a failure. Raises LostError."""
    try:
        answer = run_confined(
            lambda: work().to_json().encode(), limits_data=limits_data, is_quiet=is_quiet
        )
    except ExhaustedError as error:
        return Outcome(failure=error.failure)
    return Outcome.model_validate_json(answer)
