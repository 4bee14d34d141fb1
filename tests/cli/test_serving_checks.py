"""The doctor on Models with spec.serve: pure."""

from __future__ import annotations

import pytest

from finetune_cli.commands.doctor.findings import Finding
from finetune_cli.commands.doctor.serving_checks import serving_findings
from tests.cli.models.api import FAILED, LOADING, READY, SERVED, a_model

IGNORED = (
    "although spec.serve is set: its chart value serving.enabled is false, or it is not running"
)
DESCRIBE = "kubectl describe model c -n ml"

CASES = {
    "not served": ([a_model("a"), a_model("b", serving={"service": "s", "port": 1})], []),
    "all well": (
        [
            a_model("a", serve=SERVED, status={"serving": READY}),
            a_model("b", serve={}, status={"serving": LOADING}),
            a_model("c", serve=SERVED, status={"serving": READY}),
            a_model("d"),
        ],
        [("ok", "2 ready, 1 loading", "")],
    ),
    "ignored": (
        [a_model("a", serve=SERVED), a_model("b", serve={}, status={"conditions": []})],
        [("error", f"the operator does not serve a, b, {IGNORED}", "serving.enabled=true")],
    ),
    "failed": (
        [
            a_model("a", serve=SERVED, status={"serving": READY}),
            a_model("c", serve=SERVED, status={"serving": FAILED}),
        ],
        [("warning", f"c failed (Failed): {FAILED['message']}", DESCRIBE)],
    ),
    "stopped after a failure": ([a_model("c", status={"serving": FAILED})], []),
    "both": (
        [a_model("c", serve=SERVED, status={"serving": FAILED}), a_model("a", serve=SERVED)],
        [
            ("error", f"the operator does not serve a, {IGNORED}", "serving.enabled=true"),
            ("warning", f"c failed (Failed): {FAILED['message']}", DESCRIBE),
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_doctor_reports_models_that_are_not_served(case: str) -> None:
    models, expected = CASES[case]
    found = list(serving_findings(models, "ml"))
    assert [(it.level, it.detail) for it in found] == [it[:2] for it in expected]
    assert all(end in it.remedy for it, (_, _, end) in zip(found, expected, strict=True))
    assert {it.check for it in found} <= {"served models"}


def test_many_ignored_models_are_not_all_named() -> None:
    [found] = serving_findings([a_model(f"m{n}", serve=SERVED) for n in range(9)], "ml")
    assert isinstance(found, Finding)
    assert "m0, m1, m2, although" in found.detail
