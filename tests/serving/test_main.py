"""The command line of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.uris import S3Uri
from finetune_serving.main import build_settings, main, parse_arguments, split_model

GATEWAY = ("--trust-gateway", "--gateway-secret-file", "f", "--models-below", "s3://acme/ml")


def test_the_flags_become_settings() -> None:
    flags = ("--model", "a=folder", "--model", "b=s3://acme/b", "--keep", "3", "--cpu")
    settings = build_settings(parse_arguments(["serve", *flags, *GATEWAY]))
    assert settings.models == {"a": "folder", "b": "s3://acme/b"}
    assert (settings.keep, settings.queue, settings.hold_seconds) == (3, 32, 45)
    assert (settings.cpu, settings.secret_file) == (True, Path("f"))
    assert settings.models_below == (S3Uri("acme", "ml"),)


@pytest.mark.parametrize(
    ("text", "name", "location"),
    [
        ("a=/models/a", "a", "/models/a"),
        ("a=b=/models/x", "a=b", "/models/x"),
        ("a=b=s3://acme/x", "a=b", "s3://acme/x"),
        ("a==/x", "a=", "/x"),
        ("a=/x=/y", "a=/x", "/y"),
        ("a=s3://x=s3://acme/y", "a=s3://x", "s3://acme/y"),
        ("a=/models/day=1", "a", "/models/day=1"),
        ("a=s3://acme/day=1/x", "a", "s3://acme/day=1/x"),
        ("a=folder", "a", "folder"),
        ("a=folder=b", "a", "folder=b"),
        ("a=./folder=b", "a", "./folder=b"),
        ("ada:ft-acme:a=b-2026=/model", "ada:ft-acme:a=b-2026", "/model"),
        ("a\nb=/x", "a\nb", "/x"),
        ("a", "a", ""),
        ("=/x", "", "/x"),
    ],
)
def test_an_id_may_contain_the_separator(text: str, name: str, location: str) -> None:
    assert split_model(text) == (name, location)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "there is no model"),
        (("--model", "a"), "expected ID=FOLDER"),
        (("--model", "=x"), "expected ID=FOLDER"),
        (("--model", "=/x"), "expected ID=FOLDER"),
        (("--model", "a="), "expected ID=FOLDER"),
        (("--model", "a=b=/x", "--model", "a=b=/y"), "is there twice"),
        (("--model", "a=x", "--model", "a=y"), "is there twice"),
        (("--model", "a=s3://B/../x"), "is not an S3 address"),
        (("--trust-gateway",), "requires --gateway-secret-file"),
        ((*GATEWAY[:3],), "requires --gateway-secret-file and --models-below"),
        (("--model", "a=x", "--models-below", "s3://acme"), "requires --trust-gateway"),
    ],
)
def test_an_invalid_command_line_is_one_sentence(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    assert main(["serve", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_every_flag_has_a_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for flag in ("--model", "--trust-gateway", "--keep", "--queue", "--hold-seconds", "--port"):
        assert flag in shown


@pytest.mark.parametrize("flag", ["--keep", "--queue", "--cache-bytes"])
def test_a_count_is_at_least_one(flag: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["serve", "--model", "a=x", flag, "0"])
    assert ended.value.code == 2
