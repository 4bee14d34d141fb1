"""The page and the card of a real training agree with its manifests in S3: ZeRO 3, two ranks."""

from pathlib import Path

import pytest

from finetune_api.names import EXIT_OK
from finetune_api.tasks import Classification
from finetune_api.uris import S3Uri
from finetune_data.lookup.provenance import RunManifest
from finetune_data.lookup.published import ModelManifest
from finetune_data.tokenize.dataset import read_manifest
from finetune_storage.s3 import Storage
from finetune_trainer.reporting.card import REPORT, card
from finetune_trainer.reporting.formatting import number
from finetune_trainer.reporting.learned_examples import EXAMPLES_SHOWN
from finetune_trainer.reporting.metric_curves import Curves
from finetune_trainer.reporting.page import page
from finetune_trainer.reporting.report_data import ReportData
from tests.trainer import support
from tests.trainer.reporting.test_card import front_matter
from tests.trainer.reporting.test_page import Page

pytestmark = pytest.mark.slow

CLASSES = (40, 41)


def labeled(count: int, seed: int) -> list[support.Example]:
    """Prompts with a first token that decides the class."""
    examples = support.random_examples(count, seed)
    return [(prompt, [CLASSES[prompt[0] % 2], 2]) for prompt, _ in examples]


@pytest.fixture(scope="module")
def trained(
    storage: Storage, base_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> ReportData:
    folder = tmp_path_factory.mktemp("real")
    task = support.train_task(
        "reported",
        training_examples=160,
        validation_examples=60,
        hyperparameters=support.hyperparameters(n_epochs=4, learning_rate_multiplier=0.1),
        classification=Classification(n_classes=2),
        nodes=1,
        processes_per_node=2,
        zero_stage=3,
    )
    uri = S3Uri.parse(task.dataset)
    support.put_dataset(
        storage, uri, folder / "data", train=labeled(160, 1), validation=labeled(60, 2)
    )
    [pod] = support.start_pods(task, folder)
    assert pod.wait() == EXIT_OK, pod.log
    layout = task.run.layout
    model = ModelManifest.model_validate_json(
        storage.read_bytes(layout.model.child("manifest.json"))
    )
    dataset = read_manifest(uri, storage)
    assert dataset
    return ReportData(
        run=RunManifest.model_validate_json(storage.read_bytes(layout.manifest)),
        dataset=dataset,
        results=storage.read_bytes(layout.results).decode(),
        name=model.id,
        published=model.published,
        epochs=model.epochs,
    )


def test_the_page_shows_what_was_measured(trained: ReportData, tmp_path: Path) -> None:
    text = page(trained)
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    print(tmp_path / "report.html")
    found = Page(text)
    curves = Curves.parse(trained.results)
    assert curves.broken_rows == 0
    assert curves.last_step == 80
    assert {name for name in curves.columns if name != "step"} <= {t.strip() for t in found.texts}
    assert trained.name
    assert trained.name in found.text
    assert "80 steps, 4 epochs, 160 examples" in found.text
    last = trained.epochs[-1]
    for value in (last.training_loss, last.validation_loss):
        assert number(value) in found.text
    assert f"torch {trained.run.versions['torch']}" in " ".join(found.text.split())


def test_the_published_page_has_the_first_examples(trained: ReportData, storage: Storage) -> None:
    text = storage.read_bytes(trained.run.run.layout.root.child(REPORT)).decode()
    marked = [attributes["class"] for attributes in Page(text).of("b")]
    legend, examples = marked[:3], marked[3:]
    assert legend == ["context", "learned", "end"]
    assert examples == ["context", "learned", "end"] * EXAMPLES_SHOWN


def test_the_card_claims_the_same_metrics(trained: ReportData) -> None:
    found = front_matter(card(trained))
    [result] = found["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    accuracy = Curves.parse(trained.results).last("classification/accuracy")
    assert values["classification/accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert values["validation_token_accuracy"] == pytest.approx(
        trained.epochs[-1].validation_token_accuracy, abs=1e-6
    )
