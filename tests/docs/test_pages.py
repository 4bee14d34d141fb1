"""The pages are consistent: links, options, manifests, reasons, and generated parts."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from docs.generate import stale
from docs.generator.catalog import events
from docs.generator.commands import commands
from docs.generator.source import reasons, sentences
from finetune_api.crd import finetune_crd, model_crd
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.model import ModelSpec
from finetune_api.names import API_VERSION
from tests.docs import openai_names
from tests.docs.blocks import DOCS, FENCE, NOT_RUN, ROOT, RUN, Block, all_blocks, pages
from tests.docs.programs import KNOWN, command_lines, finetune_problem

VERBS = {"Is", "Has", "Was", "Are", "Lost", "Gave", "Can't", "Cannot", "Stopped", "Checking"}
BLOCKS = all_blocks()
COMMANDS = [
    block
    for block in BLOCKS
    if block.is_command and block.language != "python" and "include" not in block.classes
]
YAML = [block for block in BLOCKS if block.language == "yaml"]
SPECS: dict[str, tuple[Callable[[], Any], type[BaseModel]]] = {
    "FineTune": (finetune_crd, FineTuneSpec),
    "Model": (model_crd, ModelSpec),
}


def name(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_command], ids=name)
def test_a_block_of_commands_declares_where_it_runs(block: Block) -> None:
    assert block.classes & (RUN | NOT_RUN), f"{block.where}: none of {sorted(RUN | NOT_RUN)}"
    assert not (block.classes & RUN and block.classes & NOT_RUN), block.where


def test_no_command_hides_in_another_kind_of_block() -> None:
    for block in BLOCKS:
        if not block.is_command:
            assert not re.search(r"^\s*\$ ", block.text, re.MULTILINE), block.where


@pytest.mark.parametrize("page", sorted(pages()))
def test_no_command_hides_in_an_indented_block(page: str) -> None:
    outside = FENCE.sub("", pages()[page])
    programs = "|".join(sorted(KNOWN - {"true", "date"}))
    found = re.findall(rf"^(?: {{4}}|\t)(?:{programs}) .*", outside, re.MULTILINE)
    assert not found, f"docs/{page}: put it into a fenced block: {found}"


@pytest.mark.parametrize(("words", "command"), list(commands()), ids=str)
def test_examples_of_the_command_s_own_help_exist(words: str, command: click.Command) -> None:
    told = f"{command.help}\n{command.epilog}"
    examples = re.findall(r"^ *(finetune (?:.*\\\n)*.*)", told, re.MULTILINE)
    for line in [line for example in examples for line in command_lines(example)]:
        if line[0] == "finetune":
            assert finetune_problem(line) is None, f"{words}: {finetune_problem(line)}"


def test_an_included_file_exists() -> None:
    for block in BLOCKS:
        if "include" in block.classes:
            (path,) = re.findall(r'^--8<-- "(.*)"$', block.text, re.MULTILINE)
            assert (ROOT / path).is_file(), block.where


def test_an_output_block_follows_a_command_that_runs() -> None:
    for before, block in zip([None, *BLOCKS], BLOCKS, strict=False):
        if block.is_output:
            assert before is not None and before.is_command and before.classes & RUN, block.where
            assert before.page == block.page


@pytest.mark.parametrize("block", COMMANDS, ids=name)
def test_every_program_and_option_exists(block: Block) -> None:
    for words in command_lines(block.text):
        assert words[0] in KNOWN, f"{block.where}: {words[0]!r} is not a program that a reader has"
        if words[0] == "finetune":
            assert finetune_problem(words) is None, f"{block.where}: {finetune_problem(words)}"


def inline_commands() -> Iterator[tuple[str, str]]:
    for page, text in pages().items():
        if not page.startswith("reference/"):
            for span in re.findall(r"`((?:finetune|kubectl finetune) [^`\n]*)`", text):
                yield page, span.removeprefix("kubectl ")


@pytest.mark.parametrize(("page", "span"), sorted(set(inline_commands())))
def test_a_command_in_running_text_exists(page: str, span: str) -> None:
    words = span.replace("...", "X").split()
    if words[1].isupper():  # `finetune COMMAND --help`
        words[1] = "list"
    assert finetune_problem(words) is None, f"docs/{page}: `{span}`: {finetune_problem(words)}"


@pytest.mark.parametrize("block", COMMANDS, ids=name)
def test_targets_of_make_exist(block: Block) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in command_lines(block.text):
        if words[0] == "make":
            assert set(words[1:]) <= targets, block.where


@pytest.mark.parametrize("block", YAML, ids=name)
def test_a_manifest_keeps_to_the_schema(block: Block) -> None:
    for thing in yaml.safe_load_all(block.text):
        if "values" in block.classes:
            schema = json.loads((ROOT / "charts/finetune-operator/values.schema.json").read_text())
            jsonschema.validate(thing, {**schema, "required": []})
        elif thing.get("apiVersion") == API_VERSION:
            crd, model = SPECS[thing["kind"]]
            (version,) = crd()["spec"]["versions"]
            jsonschema.validate(thing, version["schema"]["openAPIV3Schema"])
            model.model_validate(thing["spec"])
        else:
            assert "elsewhere" in block.classes, f"{block.where}: unknown kind of YAML"


def test_every_reason_has_an_entry_and_every_entry_a_reason() -> None:
    text = pages()["troubleshooting.md"]
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    told = {entry.split("\n")[0] for entry in entries}
    assert told == set(reasons())
    for entry in entries:
        for part in ("**Meaning:**", "**Check:**", "**Action:**"):
            assert part in entry, f"{entry.splitlines()[0]}: no {part}"


def test_the_reference_and_troubleshooting_group_reasons_equally() -> None:
    def groups(text: str) -> dict[str, list[str]]:
        parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
        found = {
            part.split("\n")[0]: re.findall(r"^### \[?(\w+)", part, re.MULTILINE) for part in parts
        }
        return {title: names for title, names in found.items() if names}

    assert groups(pages()["troubleshooting.md"]) == groups(pages()["reference/reasons.md"])


def test_the_generated_pages_match_the_code() -> None:
    assert stale() == [], "run `python -m docs.generate`"


def test_every_field_has_a_description() -> None:
    for page in ("finetune", "status", "model"):
        rows = re.findall(r"^\| `.*", pages()[f"reference/{page}.md"], re.MULTILINE)
        assert rows
        for row in rows:
            words = row.rstrip(" |").rpartition("|")[2].replace("**required**", "")
            assert words.strip(), f"{page}: {row}"


def test_the_messages_are_found() -> None:
    """A change of how the code reports errors must not empty the pages."""
    assert len({item.reason for item in sentences()}) > len(reasons()) / 2
    assert any("lower learningRateMultiplier" in item.hint for item in sentences())
    found = {event.reason for event in events()}
    assert {"Created", "Started", "EpochCompleted", "Restarted", "Succeeded"} <= found


def test_each_message_of_a_reason_is_a_sentence_with_a_subject() -> None:
    text = pages()["reference/reasons.md"]
    for bullet in re.findall(r"^- (.*)", text, re.MULTILINE):
        first = bullet.split()[0]
        assert first not in VERBS and not first.startswith("*"), bullet


def test_every_name_in_openais_fine_tunes_api_has_its_row() -> None:
    """Commands, fields, states, and events, from its last specification."""
    text = pages()["coming-from-openai.md"]
    first_cells = "\n".join(re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE))
    for word in openai_names.COMMANDS:
        assert f"fine_tunes.{word}" in first_cells, word
    for word in openai_names.FIELDS | openai_names.STATES:
        assert re.search(rf"`(?:--)?{word}`", first_cells), word
    for words in openai_names.EVENTS:
        assert f"`{words}" in first_cells, words


class Loaded(HTMLParser):
    """Collects the addresses that a browser loads automatically."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source"}:
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in {"stylesheet", "preconnect", "icon", "preload"}:
            self.found.append(given.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_outside(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = sorted(tmp_path.rglob("*.html"))
    assert len(built) > len(pages())
    for path in built:
        loaded = Loaded()
        loaded.feed(path.read_text(encoding="utf-8"))
        outside = [address for address in loaded.found if re.match(r"(https?:)?//", address)]
        assert outside == [], f"{path.relative_to(tmp_path)} loads {outside}"
    assert "@import" not in (tmp_path / "style.css").read_text()
    for page in pages():
        assert (tmp_path / page).with_suffix(".html").exists() or page.endswith("index.md")


def test_a_page_that_is_linked_from_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in re.findall(r"\]\(docs/([^)#]+)", readme):
        assert (DOCS / page).exists(), page
