"""Which base model a run starts from."""

import json
from pathlib import Path

import pytest
import yaml

from finetune_api.catalog import CATALOG
from finetune_api.errors import Audience
from finetune_api.layout import RunLayout
from finetune_api.names import ENV_LOCAL_ROOT, LOCAL_BUCKET, Reason
from finetune_cli.commands.run.base_model import (
    OWN_MODELS,
    find_base,
    with_former_revision,
    with_own_models,
)
from finetune_cli.terminal.errors import CommandError
from finetune_data.errors import BaseModelError

ROOT = Path(__file__).parents[3]


def models_file(folder: Path, uri: str) -> Path:
    path = folder / "models.yaml"
    entry = {"name": "own", "uri": uri, "pretrainingLearningRate": 0.01, "contextLength": 64}
    path.write_text(yaml.safe_dump({"models": [entry]}))
    return path


def test_the_names_are_those_that_the_chart_ships() -> None:
    values = yaml.safe_load((ROOT / "charts/finetune-operator/values.yaml").read_text())
    ours = [model.to_dict() for model in CATALOG]
    assert values["models"] == ours


def test_a_catalog_s_model_is_found_by_its_name(tmp_path: Path) -> None:
    found = find_base("ada", None, tmp_path)
    assert (found.root, found.uri) == ("ada", CATALOG[0].uri)


def test_a_folder_beside_the_file_of_models_becomes_part_of_the_local_bucket(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    root = tmp_path / "out"
    for _ in range(2):  # again and again
        found = find_base("own", models_file(tmp_path, "mine"), root)
        assert found.uri == "s3://finetune-local/models/own"
        assert (root / "models/own/config.json").read_text() == "{}"


def test_a_model_that_was_made_here_can_be_continued(tmp_path: Path) -> None:
    name = "ada:ft-local:tone-2026-01-02-03-04-05"
    folder = tmp_path / "local/tone-12345678/model"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"id": name}))
    found = find_base(name, None, tmp_path)
    assert (found.name, found.root) == (name, "ada")
    assert found.uri == "s3://finetune-local/local/tone-12345678/model"
    assert found.pretraining_learning_rate == CATALOG[0].pretraining_learning_rate


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: [{name: own}]", "uri: Field required"),
        ("- {name: own, uri: nowhere, pretrainingLearningRate: 1, contextLength: 9}", "no model"),
        ("models: 7", "is not a list of models"),
        ("{{", "invalid YAML"),
        ("", "is not a list of models"),
    ],
)
def test_a_wrong_file_of_models_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(CommandError, match=words):
        find_base("own", path, tmp_path)


def test_an_unknown_model_is_reported_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Known models: ada, babbage, curie, davinci") as caught:
        find_base("gpt-9", None, tmp_path)
    assert caught.value.hint == OWN_MODELS


def test_a_folder_as_model_is_answered_with_the_models_flag(tmp_path: Path) -> None:
    (tmp_path / "pulled").mkdir()
    with pytest.raises(CommandError, match=r"spec\.model must be a name") as told:
        find_base("./pulled", None, tmp_path)
    assert told.value.hint == OWN_MODELS
    for word in ("--models FILE", "name", "uri", "pretrainingLearningRate", "contextLength"):
        assert word in OWN_MODELS


def test_the_hint_of_a_model_that_the_hub_does_not_provide_names_the_file_of_models() -> None:
    error = BaseModelError.of(
        Reason.S3_UNAVAILABLE,
        "base model 'curie' at hf://a/b can't be fetched: the hub does not answer (ProxyError)",
        param="model",
        hint="copy the model to S3",
        shell_hint="check the connection",
    )
    failure = error.failure_for(Audience.SHELL)
    found = with_own_models(failure, "hf://a/b")
    assert found.message == failure.message
    assert found.hint == f"check the connection; {OWN_MODELS}"
    for other in (failure.replace(param="trainingFile"), failure.replace(hint=None)):
        assert with_own_models(other, "hf://a/b") == other
    assert with_own_models(failure, "s3://a/b") == failure


@pytest.mark.parametrize("text", [None, "no JSON", "[]", "{}"])
def test_a_run_without_a_readable_manifest_resolves_its_base_model_again(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert former_revision(text, "hf://acme/tiny@main", tmp_path, monkeypatch) is None


def test_an_interrupted_run_continues_with_the_revision_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = CATALOG[0].reference
    text = json.dumps({"base": base.replace(revision="c" * 40).to_dict()})
    assert former_revision(text, base.uri, tmp_path, monkeypatch) == "c" * 40
    assert former_revision(text, "hf://acme/other@main", tmp_path, monkeypatch) is None


def former_revision(
    text: str | None, uri: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> str | None:
    """text: of the former run's manifest.json."""
    monkeypatch.setenv(ENV_LOCAL_ROOT, str(root))
    layout = RunLayout.of(f"s3://{LOCAL_BUCKET}/runs", "local", "tone", "0" * 8)
    if text is not None:
        path = root / layout.manifest.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    base = CATALOG[0].reference.replace(uri=uri)
    return with_former_revision(base, layout).revision
