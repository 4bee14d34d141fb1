"""Refusals of the API server as the errors of OpenAI's API."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.crd.rules import NEW_RULES
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.wire.kube_answers import Asked, explain
from finetune_gateway.wire.request_fields import (
    FINE_TUNE_HYPERPARAMETERS,
    RequestFields,
    fine_tune_fields,
    job_fields,
)
from finetune_web.problems import Kind, Problem

BERT = 'User "system:serviceaccount:ml:bert"'
OLD = fine_tune_fields({"resources": {"nodes": 0}})
NEW = job_fields({}, "method.supervised.hyperparameters")


def asked(
    verb: str = "create", plural: Literal["finetunes", "models"] = "finetunes", **more: Any
) -> Asked:
    return Asked(verb, plural, "ml", **more)


def of_cause(field: str, message: str, fields: RequestFields = OLD) -> Problem:
    error = KubeError(422, "is invalid", reason="Invalid", causes=((field, message),))
    return explain(error, asked(fields=fields))


def test_an_expired_token_is_an_invalid_key() -> None:
    problem = explain(KubeError(401, "Unauthorized", reason="Unauthorized"), asked())
    assert (problem.status, problem.code, problem.kind) == (
        401,
        "invalid_api_key",
        Kind.AUTHENTICATION,
    )


@pytest.mark.parametrize(
    ("verb", "plural", "sentence"),
    [
        ("delete", "models", "You must be an owner (role finetune-owner) to delete models in ml."),
        ("patch", "models", "You must be an owner (role finetune-owner) to change models in ml."),
        ("delete", "finetunes", "an owner (role finetune-owner) to delete fine-tunes in ml."),
        ("create", "finetunes", "a user (role finetune-user) to create fine-tunes in ml."),
        ("patch", "finetunes", "a user (role finetune-user) to change fine-tunes in ml."),
        ("list", "models", "a user (role finetune-user) to list models in ml."),
    ],
)
def test_a_missing_right_names_the_role_that_has_it(
    verb: str, plural: Literal["finetunes", "models"], sentence: str
) -> None:
    said = f'{plural}.finetune.dev "x" is forbidden: {BERT} cannot {verb} resource "{plural}"'
    problem = explain(KubeError(403, said, reason="Forbidden"), asked(verb, plural))
    assert (problem.status, problem.kind) == (403, Kind.PERMISSION)
    assert sentence in problem.message


def test_a_missing_right_names_the_account_of_the_key() -> None:
    said = f"finetunes.finetune.dev is forbidden: {BERT} cannot list resource"
    problem = explain(KubeError(403, said), asked("list", account="bert"))
    assert problem.message.endswith("The account bert of this key is not.")


def test_a_refused_impersonation_names_the_account() -> None:
    said = (
        'serviceaccounts "bert" is forbidden: User "system:serviceaccount:ml:gateway" cannot '
        'impersonate resource "serviceaccounts" in API group "" in the namespace "ml"'
    )
    problem = explain(KubeError(403, said, reason="Forbidden"), asked(account="bert"))
    assert problem.status == 403
    assert "may not act as the account bert in ml" in problem.message
    assert "gateway.keys.serviceAccounts" in problem.message


def test_a_full_quota_is_429_and_not_repeated() -> None:
    said = (
        'finetunes.finetune.dev "tone-1" is forbidden: exceeded quota: fine-tunes, requested: '
        "count/finetunes.finetune.dev=1, used: count/finetunes.finetune.dev=5, limited: "
        "count/finetunes.finetune.dev=5"
    )
    problem = explain(KubeError(403, said, reason="Forbidden"), asked())
    assert (problem.status, problem.code, problem.kind) == (429, "insufficient_quota", Kind.QUOTA)
    assert problem.headers == {"x-should-retry": "false"}
    assert "exceeded quota: fine-tunes" in problem.message


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            422,
            "finetunes.finetune.dev \"x\" is forbidden: ValidatingAdmissionPolicy 'small' with "
            "binding 'small' denied request: at most two nodes before Friday",
        ),
        (
            403,
            'admission webhook "policy.example.com" denied the request: at most two nodes before '
            "Friday",
        ),
        (400, 'admission webhook "p" denied the request: at most two nodes before Friday'),
        (403, 'finetunes.finetune.dev "x" is forbidden: at most two nodes before Friday'),
    ],
)
def test_a_policy_answers_with_its_sentence(status: int, said: str) -> None:
    problem = explain(KubeError(status, said), asked())
    assert (problem.status, problem.kind) == (403, Kind.PERMISSION)
    assert "at most two nodes before Friday" in problem.message


def test_what_is_not_there_is_the_object_of_the_request() -> None:
    missing = KubeError(404, 'finetunes.finetune.dev "x" not found', reason="NotFound")
    problem = explain(missing, asked("get", shown="ft-x"))
    assert (problem.status, problem.code) == (404, "fine_tune_not_found")
    assert "'ft-x'" in problem.message
    problem = explain(missing, asked("get", "models", shown="ada:ft-x"))
    assert (problem.status, problem.code, problem.param) == (404, "model_not_found", "model")


def test_a_cluster_without_the_chart_is_not_a_missing_object() -> None:
    said = "the server could not find the requested resource"
    problem = explain(KubeError(404, said), asked("list"))
    assert (problem.status, problem.should_retry) == (503, False)
    assert "install the chart" in problem.message


@pytest.mark.parametrize("status", [0, 408, 409, 410, 429, 500, 502, 503, 504])
def test_what_may_pass_is_503_and_never_409(status: int) -> None:
    problem = explain(KubeError(status, "later", retry_after=3), asked())
    assert problem.status == 503
    assert problem.headers["Retry-After"] == "3"
    assert explain(KubeError(status, "later", retry_after=9999), asked()).retry_after == 60
    assert explain(KubeError(status, "later"), asked()).retry_after == 5


def test_the_cause_of_no_answer_is_shown() -> None:
    problem = explain(KubeError(0, "The namespace has more than 10,000 models."), asked())
    assert problem.message == "The namespace has more than 10,000 models. Try again."


def test_a_webhook_that_does_not_answer_may_do_so_later() -> None:
    said = 'Internal error occurred: failed calling webhook "x": connection refused'
    assert explain(KubeError(500, said), asked()).status == 503


@pytest.mark.parametrize(
    ("field", "message", "param", "sentence"),
    [
        (
            "spec.hyperparameters.nEpochs",
            "Invalid value: 99: spec.hyperparameters.nEpochs in body should be less than or equal "
            "to 50",
            "n_epochs",
            "n_epochs should be less than or equal to 50, but it is 99.",
        ),
        (
            "spec.hyperparameters.learningRateMultiplier",
            "Invalid value: 1e-07: should be greater than or equal to 1e-06",
            "learning_rate_multiplier",
            "learning_rate_multiplier should be greater than or equal to 1e-06, but it is 1e-07.",
        ),
        (
            "spec.hyperparameters.nEpochs",
            'Invalid value: "string": spec.hyperparameters.nEpochs in body must be of type '
            'integer: "string"',
            "n_epochs",
            "n_epochs must be of type integer, but it is of type string.",
        ),
        (
            "spec.hyperparameters.classificationBetas[1]",
            "Invalid value: 0: should be greater than or equal to 0.01",
            "classification_betas",
            "classification_betas should be greater than or equal to 0.01, but it is 0.",
        ),
        (
            "spec.suffix",
            "Too long: may not be more than 40 bytes",
            "suffix",
            "suffix: too long: may not be more than 40 bytes.",
        ),
        (
            "spec.method.type",
            'Unsupported value: "qlora": supported values: "full", "lora"',
            "method.type",
            'method.type: unsupported value: "qlora": supported values: "full", "lora".',
        ),
        ("spec.trainingFile", "Required value", "training_file", "training_file is required."),
        (
            "spec.resources.nodes",
            "Invalid value: 0: spec.resources.nodes in body should be greater than or equal to 1",
            "finetune.resources.nodes",
            "finetune.resources.nodes should be greater than or equal to 1, but it is 0.",
        ),
        (
            "<nil>",
            'Invalid value: "object": hyperparameters.computeClassificationMetrics needs a '
            "validationFile",
            "compute_classification_metrics",
            "compute_classification_metrics needs a validation_file.",
        ),
        (
            "",
            'Invalid value: {"a":{"b":": "}}: spec.trainingFile may have at most 1024 bytes',
            "training_file",
            "training_file may have at most 1024 bytes.",
        ),
        (
            "spec.priorityClassName",
            "Invalid value: \"x\": spec.priorityClassName in body should match '^[a-z]$'",
            "priorityClassName",
            "priorityClassName should match '^[a-z]$', but it is \"x\".",
        ),
    ],
)
def test_the_rules_of_the_crd_name_the_fields_of_the_request(
    field: str, message: str, param: str, sentence: str
) -> None:
    problem = of_cause(field, message)
    assert (problem.status, problem.param, problem.message) == (400, param, sentence)


def test_the_fields_of_a_job_have_their_full_name() -> None:
    rule = "Invalid value: 99: spec.hyperparameters.nEpochs in body should be at most 50"
    problem = of_cause("spec.hyperparameters.nEpochs", rule, NEW)
    assert problem.param == "method.supervised.hyperparameters.n_epochs"
    assert of_cause("spec.hyperparameters.seed", "Invalid value: -1: no", NEW).param == "seed"


def test_what_the_api_server_did_not_check_is_not_the_cause() -> None:
    unchecked = "Invalid value: null: some validation rules were not checked because the object"
    error = KubeError(
        422, "is invalid", causes=(("<nil>", unchecked), ("spec.suffix", "Required value"))
    )
    assert explain(error, asked(fields=OLD)).param == "suffix"


def test_an_unknown_field_of_the_extension_is_named() -> None:
    said = 'strict decoding error: unknown field "spec.resources.gpus"'
    fields = fine_tune_fields({"resources": {"gpus": 2}})
    problem = explain(KubeError(400, said), asked(fields=fields))
    assert (problem.status, problem.param) == (400, "finetune.resources.gpus")


def test_no_rule_of_the_crd_shows_a_name_that_the_fine_tunes_api_does_not_have() -> None:
    """Each field that a request to that API can have is called by its name there."""
    for _, message in NEW_RULES:
        shown = of_cause("<nil>", f'Invalid value: "object": {message}').message
        assert "classificationBetas" not in shown
        assert "computeClassificationMetrics" not in shown
        assert "validationFile" not in shown
    renamed = {OLD.param(f"hyperparameters.{name}") for name in ("nEpochs", "promptLossWeight")}
    assert renamed <= set(FINE_TUNE_HYPERPARAMETERS)


TEXTS = st.text(max_size=80) | st.sampled_from(
    ["Invalid value: ", 'Invalid value: "', "Invalid value: [[[: x", "is forbidden: exceeded quota"]
)


@given(
    status=st.integers(0, 599),
    message=TEXTS,
    causes=st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
    retry_after=st.none() | st.integers(-5, 10**6),
)
def test_every_refusal_has_an_answer(
    status: int, message: str, causes: tuple[tuple[str, str], ...], retry_after: int | None
) -> None:
    error = KubeError(status, message, causes=causes, retry_after=retry_after)
    problem = explain(error, asked(fields=OLD))
    assert 400 <= problem.status < 600
    assert problem.status != 409
    assert len(problem.message) < 2000
    assert problem.retry_after is None or 1 <= problem.retry_after <= 60
