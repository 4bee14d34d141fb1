"""The addresses of what FineTunes publish. They are computed, and never taken from a request."""

from __future__ import annotations

import re

from finetune_api.finetune import FineTune
from finetune_api.layout import RunLayout
from finetune_api.uris import S3Uri
from finetune_gateway.wire.ids import Artifact

_UID = re.compile(r"[0-9a-f]{8}")


class PublishedFiles:
    """The results and reports of the FineTunes of one namespace, below the chart's output."""

    def __init__(self, output: str, namespace: str) -> None:
        """output: empty if FineTunes have outputs of their own. Raises ValueError if invalid."""
        self._output = output and str(S3Uri.parse(output))
        self._namespace = namespace

    def address(self, artifact: Artifact, finetune: FineTune) -> S3Uri | None:
        """None if the object is not the artifact's FineTune, or has another output than the chart.

        A FineTune that has adopted the model of a former one with its name has the files of that
        one. Its status has their address.
        """
        name = finetune.metadata.name
        uid = finetune.metadata.uid[:8]
        if name != artifact.finetune or _UID.fullmatch(uid) is None:
            return None
        if not self._output or not self._is_below_output(finetune):
            return None
        layout = RunLayout.of(self._output, self._namespace, name, self._uid_of_results(finetune))
        return layout.results if artifact.kind == "results" else layout.report

    def _is_below_output(self, finetune: FineTune) -> bool:
        resolved = finetune.status.resolved
        used = resolved.output if resolved else finetune.spec.output
        try:
            return not used or str(S3Uri.parse(used)) == self._output
        except ValueError:
            return False

    def _uid_of_results(self, finetune: FineTune) -> str:
        """The start of the UID in the status, if its address differs in nothing else."""
        name = finetune.metadata.name
        for text in (finetune.status.result_files or [])[:1]:
            digits = text.removesuffix("/results.csv")[-8:]
            if _UID.fullmatch(digits) is not None:
                layout = RunLayout.of(self._output, self._namespace, name, digits)
                if text == str(layout.results):
                    return digits
        return finetune.metadata.uid
