"""Classification metrics compared with scikit-learn, and scores with a plain model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.errors import FailureError
from finetune_api.names import Reason
from finetune_api.tasks import Classification
from finetune_data.tokenize.dataset import TokenSplit
from finetune_trainer.batching.order import Costs
from finetune_trainer.evaluation.class_metrics import (
    auroc,
    average_precision,
    columns,
    measure,
    softmax,
    weighted_f1,
)
from finetune_trainer.evaluation.class_scorer import ClassScorer, find_positive_class
from tests.data.builders import write_tokenizer
from tests.trainer import support

BINARY = Classification(positive_class=" yes", betas=[0.5, 1.0, 2])


def test_the_columns_and_their_order_are_those_of_openai_s_fine_tunes_api() -> None:
    assert columns(Classification(n_classes=3)) == [
        "classification/accuracy",
        "classification/weighted_f1_score",
    ]
    assert columns(BINARY) == [
        f"classification/{name}"
        for name in ("accuracy", "precision", "recall", "auroc", "auprc", "f1.0", "f0.5", "f2.0")
    ]


two_classes = st.lists(
    st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.booleans()), min_size=2, max_size=40
).filter(lambda rows: len({positive for _, positive in rows}) == 2)


@pytest.mark.slow  # scikit-learn takes seconds to import
@settings(max_examples=100)
@given(two_classes)
def test_metrics_of_two_classes_equal_scikit_learn_s(rows: list[tuple[float, bool]]) -> None:
    from sklearn import metrics

    score = np.array([one for one, _ in rows])
    truth = np.array([int(positive) for _, positive in rows])
    found = measure(np.stack([1 - score, score], 1), truth, BINARY, 1)
    predicted = score > 0.5
    wanted = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "precision": metrics.precision_score(truth, predicted, zero_division=0),
        "recall": metrics.recall_score(truth, predicted, zero_division=0),
        "auroc": metrics.roc_auc_score(truth, score),
        "auprc": metrics.average_precision_score(truth, score),
        "f1.0": metrics.f1_score(truth, predicted, zero_division=0),
        "f0.5": metrics.fbeta_score(truth, predicted, beta=0.5, zero_division=0),
        "f2.0": metrics.fbeta_score(truth, predicted, beta=2, zero_division=0),
    }
    for name, value in wanted.items():
        assert found[f"classification/{name}"] == pytest.approx(value, abs=1e-12), name


@pytest.mark.slow  # scikit-learn takes seconds to import
@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_metrics_of_many_classes_equal_scikit_learn_s(rows: list[tuple[int, int]]) -> None:
    from sklearn import metrics

    predicted, truth = (np.array(column) for column in zip(*rows, strict=True))
    wanted = metrics.f1_score(truth, predicted, average="weighted", zero_division=0)
    assert weighted_f1(predicted, truth, 4) == pytest.approx(wanted, abs=1e-12)
    scores = np.eye(4)[predicted]
    found = measure(scores, truth, Classification(n_classes=4), None)
    assert found["classification/accuracy"] == metrics.accuracy_score(truth, predicted)


def test_a_single_class_has_no_auroc_and_no_auprc() -> None:
    score = np.array([0.2, 0.9])
    assert auroc(score, np.array([True, True])) is None
    assert auroc(score, np.array([False, False])) is None
    assert average_precision(score, np.array([False, False])) is None


def test_a_score_of_one_half_is_not_positive() -> None:
    even = np.array([[0.5, 0.5]])
    assert measure(even, np.array([1]), BINARY, 1)["classification/recall"] == 0


YES, NO, MAYBE = [9, 10, 2], [9, 11, 2], [12, 2]  # labels of several tokens, with their end


def rows(*labels: list[int]) -> list[support.Example]:
    return [([5 + n, 6, 7 + n % 3], label) for n, label in enumerate(labels)]


def classifier(asked: Classification) -> ClassScorer:
    return ClassScorer(
        asked,
        support.split_of(rows(YES, NO, YES)),
        support.split_of(rows(NO, MAYBE, YES, YES)),
        positive=lambda _: None,
        costs=Costs(slots=24, overhead=8),
        heartbeat=lambda: None,
    )


def test_a_score_is_the_log_probability_of_the_whole_label() -> None:
    import torch

    from tests.trainer.one_rank import OneRank

    found = classifier(Classification(n_classes=3))
    assert found.labels == [tuple(YES), tuple(NO), tuple(MAYBE)]
    engine = OneRank(support.tiny_llama())
    scores = found.scores(engine)  # type: ignore[arg-type]
    assert scores.shape == (4, 3)
    for row, (prompt, _) in enumerate(rows(NO, MAYBE, YES, YES)):
        for column, label in enumerate(found.labels):
            tokens = torch.tensor([[*prompt, *label]])
            with torch.no_grad():
                logs = engine.model(input_ids=tokens).logits.log_softmax(-1)[0]
            wanted = sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(label))
            assert scores[row, column] == pytest.approx(wanted, abs=1e-5)
    assert np.allclose(softmax(scores).sum(1), 1)
    measured = found.measure(engine)  # type: ignore[arg-type]
    assert set(measured) == set(columns(Classification(n_classes=3)))


def test_a_label_ends_before_the_rest_of_the_chat() -> None:
    split = TokenSplit(
        np.array([1, 7, 9, 2, 40, 1, 8, 9, 2, 40], np.int32),
        np.array([0, 1, 2, 2, 1, 0, 1, 2, 2, 1], np.uint8),
        np.array([0, 5, 10], np.int64),
    )
    asked = Classification(n_classes=2)
    costs = Costs(slots=24, overhead=8)
    found = ClassScorer(
        *(asked, split, split), positive=lambda _: None, costs=costs, heartbeat=lambda: None
    )
    assert found.labels == [(9, 2)]
    assert found.has_one_class


def test_the_positive_class_is_the_label_of_its_tokens_or_the_only_one_of_its_text(
    tmp_path: Path,
) -> None:
    from tokenizers import Tokenizer

    folder = write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    end = tokens("</s>")
    rows = [tokens(" no") + end, tokens(" yes") + end]
    assert find_positive_class(folder, BINARY)(rows) == 1
    chats = [tokens("yes</s>\n"), tokens("no</s>\n")]
    assert find_positive_class(folder, Classification(positive_class="yes"))(chats) == 0
    assert find_positive_class(folder, Classification(n_classes=2))(chats) is None
    with pytest.raises(FailureError) as caught:
        find_positive_class(folder, Classification(positive_class="maybe"))(chats)
    assert caught.value.failure.code == Reason.INVALID_DATA
    assert caught.value.failure.param == "hyperparameters.classificationPositiveClass"
