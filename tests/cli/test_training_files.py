"""Several training files on the command line, in a manifest, and in what `get` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.finetune_status import Resolved
from finetune_api.uris import S3Uri
from finetune_cli.manifests import manifest
from finetune_cli.manifests.checking import check
from finetune_cli.manifests.local_files import (
    local_files,
    spec_with_placeholders,
    with_addresses,
    with_full_paths,
)
from finetune_cli.manifests.training_files import (
    field_of_flags,
    training_file_texts,
    without_other_field,
)
from finetune_cli.manifests.uploads import Upload, require_different_training_files
from finetune_cli.terminal.errors import CommandError
from tests.cli.statuses import resolved

MIXED = {
    **manifest.empty(),
    "spec": {
        "trainingFiles": [
            {"uri": "old.jsonl", "weight": 3},
            {"uri": "s3://acme/new.jsonl", "weight": 1},
        ],
        "validationFile": "valid.jsonl",
    },
}


@pytest.mark.parametrize(
    ("values", "field", "wanted"),
    [
        (["a.jsonl"], "trainingFile", "a.jsonl"),
        (["s3://acme/a=3"], "trainingFile", "s3://acme/a=3"),
        (["a", "b"], "trainingFiles", [{"uri": "a"}, {"uri": "b"}]),
        (
            ["a=3", "s3://acme/b=0.5"],
            "trainingFiles",
            [{"uri": "a", "weight": 3}, {"uri": "s3://acme/b", "weight": 0.5}],
        ),
        (
            ["s3://acme/day=1/a=1", "day=2/a"],
            "trainingFiles",
            [{"uri": "s3://acme/day=1/a", "weight": 1}, {"uri": "day=2/a"}],
        ),
        (["named=7", "a=nan"], "trainingFiles", [{"uri": "named=7"}, {"uri": "a=nan"}]),
    ],
)
def test_each_flag_is_a_file_with_or_without_a_weight(
    home: Path, values: list[str], field: str, wanted: Any
) -> None:
    (home / "named=7").touch()
    assert field_of_flags(values) == (field, wanted)


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ([], {"trainingFile", "trainingFiles", "model"}),
        (["model"], {"trainingFile", "trainingFiles", "model"}),
        (["trainingFile", "model"], {"trainingFile", "model"}),
        (["trainingFile", "trainingFiles"], {"trainingFiles", "model"}),
    ],
)
def test_a_field_of_the_command_line_replaces_the_other_one(
    changed: list[str], kept: set[str]
) -> None:
    whole = {"spec": {"trainingFile": "a", "trainingFiles": [], "model": "ada"}}
    assert set(without_other_field(whole, changed)["spec"]) == kept


def test_local_files_of_a_list_get_addresses_one_by_one() -> None:
    assert local_files(MIXED) == {
        "trainingFiles[0].uri": "old.jsonl",
        "validationFile": "valid.jsonl",
    }
    check(spec_with_placeholders(MIXED))
    there = with_full_paths(MIXED, Path("data"))
    assert there["spec"]["trainingFiles"][0] == {"uri": "data/old.jsonl", "weight": 3}
    ready = with_addresses(MIXED, {"trainingFiles[0].uri": "s3://acme/old"})
    assert [file["uri"] for file in ready["spec"]["trainingFiles"]] == [
        "s3://acme/old",
        "s3://acme/new.jsonl",
    ]
    assert MIXED["spec"]["trainingFiles"][0]["uri"] == "old.jsonl"
    assert manifest.named(MIXED, None)["metadata"] == {"generateName": "old-"}


@pytest.mark.parametrize(
    "files", [None, 3, "a", {}, [None], ["a"], [{}], [{"uri": 3}], [{"uri": ["a"]}]]
)
def test_a_list_of_the_wrong_form_is_refused_in_words(files: object) -> None:
    whole = {**manifest.empty(), "spec": {"trainingFiles": files}}
    assert local_files(whole) == {}
    manifest.named(whole, None)
    with pytest.raises(CommandError, match=r"spec\.trainingFile"):
        check(spec_with_placeholders(with_full_paths(whole, Path("data"))))


def test_one_local_file_twice_is_refused_before_it_has_an_address() -> None:
    whole = {"spec": {"trainingFiles": [{"uri": "a.jsonl"}, {"uri": "a.jsonl"}]}}
    with pytest.raises(CommandError, match=r"trainingFiles\[1\]\.uri is the same file as"):
        check(spec_with_placeholders(whole))


def test_two_local_files_with_the_same_content_are_refused() -> None:
    def upload(name: str, digest: str) -> Upload:
        return Upload(Path(name), S3Uri("acme", f"data/{digest}/{name}"), 1, 1, exists=False)

    first, copy, other = upload("a", "1"), upload("b", "1"), upload("c", "2")
    require_different_training_files({"trainingFiles[0].uri": first, "validationFile": copy})
    require_different_training_files(
        {f"trainingFiles[{n}].uri": f for n, f in enumerate([first, other])}
    )
    with pytest.raises(CommandError, match="b has the same content as a"):
        require_different_training_files(
            {f"trainingFiles[{n}].uri": f for n, f in enumerate([first, other, copy])}
        )


def test_get_prints_the_files_with_their_weights_and_examples() -> None:
    spec = FineTuneSpec.model_validate(
        {
            "trainingFiles": [
                {"uri": "s3://acme/a", "weight": 3},
                {"uri": "s3://acme/b", "weight": 1},
            ]
        }
    )
    assert training_file_texts(spec, None) == [
        "s3://acme/a (weight 3)",
        "s3://acme/b (weight 1)",
    ]
    counts = [{"examples": 3000, "epochExamples": 3000}, {"examples": 40, "epochExamples": 1000}]
    known = Resolved.model_validate({**resolved("acme"), "trainingFiles": counts})
    assert training_file_texts(spec, known) == [
        "s3://acme/a (3,000 examples, weight 3, 3,000 in an epoch)",
        "s3://acme/b (40 examples, weight 1, 1,000 in an epoch)",
    ]
    single = FineTuneSpec.model_validate({"trainingFile": "s3://acme/a"})
    assert training_file_texts(single, known.replace(training_files=None, training_examples=7)) == [
        "s3://acme/a (7 examples)"
    ]
