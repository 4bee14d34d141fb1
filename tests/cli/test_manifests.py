"""From files and flags to the manifest that is sent, and what is wrong with it, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetune_spec import FineTuneSpec, Hyperparameters
from finetune_cli.commands.create.command import command
from finetune_cli.commands.create.flags import field_values, join_betas
from finetune_cli.manifests import manifest
from finetune_cli.manifests.checking import check
from finetune_cli.terminal.console import to_yaml
from finetune_cli.terminal.errors import CommandError

GOOD = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTune",
    "metadata": {"name": "tone", "labels": {"a": "b"}},
    "spec": {"trainingFile": "s3://acme/train.jsonl"},
}


def refused(text: str) -> str:
    """The sentence about a file with this text."""
    with pytest.raises(CommandError) as caught:
        documents = [found for found in manifest.parse(text, "f.yaml") if found is not None]
        manifest.clean(documents[0] if documents else None, "f.yaml")
    assert caught.value.code == 2
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "f.yaml contains no object"),
        ("- a\n", "f.yaml contains no object"),
        ("a: [1\nb: 2\n", "f.yaml, line 2"),
        ("a: 1\na: 2\n", 'f.yaml, line 2: duplicate key "a"'),
        ("kind: Pod\napiVersion: v1\n", "f.yaml is not a FineTune: apiVersion 'v1', kind 'Pod'"),
        ("a: !!python/object:os.system x\n", "f.yaml, line 1, column 4: invalid YAML"),
        ("[" * 600, "f.yaml is not valid YAML"),
        ("a: \x00\n", "f.yaml is not valid YAML"),
        (yaml.safe_dump({**GOOD, "spec": 3}), "f.yaml: spec must be a map"),
        (yaml.safe_dump({**GOOD, "speck": {}}), 'f.yaml: unknown field "speck"'),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, words: str) -> None:
    assert words in refused(text)


def test_what_the_server_wrote_is_left_out() -> None:
    stored = {
        **GOOD,
        "metadata": {
            **GOOD["metadata"],  # type: ignore[dict-item]
            "uid": "u",
            "resourceVersion": "7",
            "managedFields": [{}],
            "annotations": {manifest.LAST_APPLIED: "{}"},
        },
        "status": {"state": "failed"},
    }
    [found] = manifest.parse(to_yaml(stored), "-")
    assert manifest.clean(found, "-") == GOOD


def test_one_file_is_one_finetune(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump_all([GOOD, GOOD]))
    with pytest.raises(CommandError, match="contains 2 objects"):
        manifest.read(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="not UTF-8"):
        manifest.read(str(path))
    path.write_bytes(b" " * (manifest.LARGEST_FILE + 1))
    with pytest.raises(CommandError, match="larger than 1 MiB"):
        manifest.read(str(path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_yaml_reads_back_as_the_same_value(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


@given(
    st.dictionaries(
        st.sampled_from([*FineTuneSpec.model_json_schema()["properties"], "x"]),
        json_values,
        max_size=4,
    )
)
def test_no_value_breaks_the_check(spec: dict[str, Any]) -> None:
    """Any untrusted manifest is valid, or is rejected in one line."""
    try:
        made = manifest.clean({**GOOD, "spec": spec}, "f.yaml")
        check(manifest.with_values(made, [("hyperparameters.seed", 7)])["spec"])
    except CommandError as error:
        assert "\n" not in error.message
        assert error.message.isprintable()


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, "spec.trainingFile is required"),
        (
            {"trainingFile": "s3://acme/a", "trainingFiles": [{"uri": "s3://acme/b"}]},
            "spec: set trainingFile or trainingFiles, not both",
        ),
        (
            {"trainingFiles": [{"uri": "s3://acme/a", "weigth": 2}]},
            "spec.trainingFiles[0].weigth is an unknown field, did you mean weight?",
        ),
        (
            {"trainingFiles": [{"uri": "s3://acme/a", "weight": 2}, {"uri": "s3://acme/b"}]},
            "spec.trainingFiles[1].weight is missing: set a weight for every file or for none",
        ),
        (
            {"trainingFiles": [{"uri": "s3://acme/a"}, {"uri": "s3://acme/a"}]},
            "spec.trainingFiles[1].uri is the same file as trainingFiles[0]",
        ),
        (
            {"trainingFiles": [{"uri": "s3://acme/a", "weight": 0}]},
            "spec.trainingFiles[0].weight: 0 must be greater than or equal to 0.001",
        ),
        (
            {"trainingFile": "gs://a/b"},
            "spec.trainingFile: 'gs://a/b' must have the form s3://bucket",
        ),
        (
            {"trainingfile": "s3://acme/a"},
            "spec.trainingfile is an unknown field, did you mean",
        ),
        (
            {"hyperparameters": {"n_epochs": 2}},
            "spec.hyperparameters.n_epochs is an unknown field, did you mean nEpochs?",
        ),
        (
            {"hyperparameters": {"nEpochs": 0}},
            "spec.hyperparameters.nEpochs: 0 must be greater than or equal to 1",
        ),
        (
            {"hyperparameters": {"nEpochs": "4"}},
            "spec.hyperparameters.nEpochs: '4' must be a valid integer",
        ),
        (
            {"hyperparameters": {"lrSchedule": "cos"}},
            "spec.hyperparameters.lrSchedule: 'cos' must be 'cosine', 'linear' or 'constant'",
        ),
        ({"suffix": False}, "spec.suffix: False must be a valid string"),
        ({"suffix": "x" * 65}, "must have at most 64 characters"),
        (
            {"scheduling": {"tolerations": [{}, {"keyy": "a"}]}},
            "spec.scheduling.tolerations[1].keyy is an unknown field, did you mean key?",
        ),
        ({"method": "lora"}, "spec.method: 'lora' must be"),
        ({"resources": None}, "spec.resources: None must be"),
        ({"a\x1b[2J": 1}, "spec.a\\x1b[2J is an unknown field"),
    ],
)
def test_field_value_and_rule_are_named(spec: dict[str, Any], wanted: str) -> None:
    is_whole = not spec or not {"trainingFile", "trainingFiles"}.isdisjoint(spec)
    whole = spec if is_whole else {"trainingFile": "s3://acme/a", **spec}
    with pytest.raises(CommandError) as caught:
        check(whole)
    assert wanted in caught.value.message
    assert "\n" not in caught.value.message


def test_all_invalid_fields_are_reported_at_once_and_valid_ones_pass() -> None:
    check({"trainingFile": "s3://acme/a", "hyperparameters": {"promptLossWeight": 0}})
    with pytest.raises(CommandError) as caught:
        check({"trainingFile": "x", "hyperparameters": {"nEpochs": 0, "batchSize": 0}, "y": 1})
    assert caught.value.message.count(";") == 3


@pytest.mark.parametrize(
    ("texts", "spec"),
    [
        (["hyperparameters.seed=7"], {"hyperparameters": {"nEpochs": 2, "seed": 7}}),
        (["spec.suffix=no"], {"suffix": False}),
        (["suffix='no'"], {"suffix": "no"}),
        (["method={type: lora, rank: 8}"], {"method": {"type": "lora", "rank": 8}}),
        (
            ["hyperparameters.nEpochs=3", "hyperparameters.nEpochs=4"],
            {"hyperparameters": {"nEpochs": 4}},
        ),
        (["runtime="], {"runtime": None}),
    ],
)
def test_set_changes_one_field(texts: list[str], spec: dict[str, Any]) -> None:
    before = {**manifest.empty(), "spec": {"hyperparameters": {"nEpochs": 2}}}
    after = manifest.with_values(before, manifest.settings(texts))
    assert after["spec"] == {**before["spec"], **spec}
    assert before["spec"] == {"hyperparameters": {"nEpochs": 2}}


@pytest.mark.parametrize("text", ["seed", "=7", "a..b=1", ".=1"])
def test_a_setting_without_a_field_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="must have the form hyperparameters"):
        manifest.settings([text])


@pytest.mark.parametrize(
    ("metadata", "name", "wanted"),
    [
        ({"name": "tone"}, None, {"name": "tone"}),
        ({"name": "tone"}, "other", {"name": "other"}),
        ({"generateName": "a-"}, None, {"generateName": "a-"}),
        ({"generateName": "a-"}, "b", {"name": "b"}),
        ({}, None, {"generateName": "support-tone-"}),
    ],
)
def test_a_name_is_found(
    metadata: dict[str, str], name: str | None, wanted: dict[str, str]
) -> None:
    made = {**manifest.empty(), "metadata": metadata, "spec": {"suffix": "Support tone!"}}
    assert manifest.named(made, name)["metadata"] == wanted


@pytest.mark.parametrize("name", ["Tone", "a_b", "-a", "x" * 64, "a/b"])
def test_a_wrong_name_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="is not a valid name"):
        manifest.named(manifest.empty(), name)


@given(st.text(max_size=80), st.text(max_size=80))
def test_every_made_up_name_is_allowed(suffix: str, file: str) -> None:
    made = {**manifest.empty(), "spec": {"suffix": suffix, "trainingFile": f"s3://acme/{file}"}}
    stem = manifest.named(made, None)["metadata"]["generateName"]
    assert manifest.is_name(f"{stem}abcde")


def test_openais_list_of_betas_is_one_value() -> None:
    old = ["--classification_betas", "0.6", "1", "1.5", "-m", "ada"]
    assert join_betas(old) == ["--classification_betas", "0.6,1,1.5", "-m", "ada"]
    assert join_betas(["-t", "5"]) == ["-t", "5"]


def test_every_hyperparameter_has_a_flag_and_every_flag_is_a_field() -> None:
    """A path that the API does not know would be refused as an unknown field."""
    options = {option.name: option for option in command.params}
    assert {*Hyperparameters.model_fields} <= {*options}
    given = dict.fromkeys(options, object())
    for path, value in field_values(given):
        whole = manifest.with_values(manifest.empty(), [(path, value)])["spec"]
        with pytest.raises(CommandError) as caught:
            check({"trainingFile": "s3://acme/a", **whole})
        assert "unknown field" not in caught.value.message
        assert f"spec.{path}:" in caught.value.message
    assert field_values({"n_epochs": 2, "seed": None}) == [("hyperparameters.nEpochs", 2)]
    assert all(getattr(option, "help", "") for option in options.values() if option.name != "name")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("n_epochs", "integer"),
        ("learning_rate", "float"),
        ("lr_schedule", "choice"),
        ("classification_betas", "numbers"),
        ("compute_classification_metrics", "boolean"),
    ],
)
def test_the_type_of_a_flag_is_the_type_of_its_field(name: str, kind: str) -> None:
    (option,) = (option for option in command.params if option.name == name)
    assert option.type.name == kind
