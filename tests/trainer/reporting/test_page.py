"""report.html is complete, well-formed, self-contained, and safe against text from users."""

import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser
from typing import Any

import pytest

from finetune_api.outcome import EpochMetrics, Failure
from finetune_data.read.sources import InputFile
from finetune_data.tokenize.dataset import SplitCounts
from finetune_trainer.evaluation.confusion import ConfusionMatrix
from finetune_trainer.reporting.card import card
from finetune_trainer.reporting.metric_curves import Curves
from finetune_trainer.reporting.page import page
from finetune_trainer.reporting.report_data import (
    Attempt,
    ExampleSpan,
    LearnedExample,
    ReportData,
    Sample,
    ThroughputPoint,
)
from tests.trainer.reporting import support

HOSTILE = "</title></svg><script>alert(1)</script><img src=x onerror='alert(2)'>\"'&{{ 7*7 }}\x00"
VOID = {"meta", "br", "link", "img", "hr", "input"}
SELF_CLOSED = {"path", "rect", "circle"}  # of SVG, where they have no content


LEARNED = LearnedExample(
    context=40,
    learned=42,
    spans=[
        ExampleSpan(kind="context", tokens=["<|user|>", " where", " is", "\n"] * 10, count=40),
        ExampleSpan(kind="learned", tokens=[" on", " its", "way"] * 10, count=30),
        ExampleSpan(kind="omitted", count=10),
        ExampleSpan(kind="learned", tokens=[" x" * 100], count=1),
        ExampleSpan(kind="end", tokens=["<|end|>"], count=1),
    ],
)


class Page(HTMLParser):
    """Elements, attributes, and texts of a page; fails if tags are not nested correctly."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs))
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSED
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def full(steps: int = 1000, **changes: Any) -> ReportData:
    """A report with all its parts."""
    values: dict[str, Any] = {
        "results": support.results(steps, asked=support.BINARY),
        "confusion": ConfusionMatrix(labels=[" no", " yes"], counts=[[90, 10], [20, 80]]),
        "examples": [LEARNED],
        "samples": [Sample(prompt="Is it?", expected=" yes", before=" The", after=" yes")],
        "attempts": [
            Attempt(number=1, to_step=600, seconds=3600, processes=2, ended="the node was drained"),
            Attempt(number=2, from_step=500, to_step=steps, seconds=1800, processes=2),
        ],
        "speeds": [ThroughputPoint(step=step, tokens_per_second=5000) for step in range(500, 1000)],
        "dataset": support.dataset(advice=["2 rows are copies."]),
    }
    return support.report(steps, **(values | changes))


@pytest.fixture(scope="module")
def whole() -> Page:
    return Page(page(full()))


def test_the_page_has_all_known_facts(whole: Page) -> None:
    for text in (
        "ada:ft-your-org:custom-model-name-2026-02-15-04-21-04",
        "1,000 steps, 4 epochs, 2,000 examples, 812,000 trained tokens",
        "s3://acme/train.jsonl",
        "1" * 64,
        "learningRateMultiplier",
        "2 rows are copies.",
        "the node was drained",
        "3 h 0 min",
        "2.13.0",
        "After (as expected)",
        "90.0%",
    ):
        assert text in whole.text


def test_several_training_files_have_their_weights_and_repeats() -> None:
    data = support.report(dataset=support.mixed())
    found = Page(page(data)).text
    for text in (
        "trainingFiles[1] s3://acme/1.jsonl",
        "Training examples in an epoch 2,000",
        "trainingFiles[0] 1,500 2 3 1,500 75.0% once",
        "trainingFiles[1] 150 0 1 500 25.0% 3 or 4 times",
    ):
        assert text in " ".join(found.split()), text
    table = "| trainingFiles\\[1\\] | 150 | 0 | 1 | 500 | 25.0% | 3 or 4 times |"
    assert table in card(data)
    assert data.distinct_examples == 1650
    assert "Each example occurs" not in Page(page(support.report())).text


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (None, None, ""),
        (12, None, "those before the training end after 12 tokens."),
        (0, 9, "those before the training are left out and those after the training end after 9"),
    ],
)
def test_the_page_and_the_card_say_when_completions_are_cut(
    before: int | None, after: int | None, note: str
) -> None:
    data = full(50, samples_cut_before=before, samples_cut_after=after)
    for text in (Page(page(data)).text, card(data)):
        assert ("at most 1 % of the run" in text) == bool(note)
        assert note in text


@pytest.mark.parametrize("has_validation", [True, False])
def test_every_measured_column_is_named_and_drawn(has_validation: bool) -> None:
    asked = support.BINARY if has_validation else None
    text = support.results(50, validation=has_validation, asked=asked)
    measured = set(Curves.parse(text).columns)
    found = Page(page(support.report(50, results=text)))
    names = {entry.strip() for entry in found.texts}
    assert measured - {"step"} <= names
    drawn = sum("class" in a and (a["class"] or "").startswith("line ") for a in found.of("path"))
    assert drawn == len(measured - {"step", "elapsed_tokens", "elapsed_examples"})


def test_an_unknown_column_is_drawn_too() -> None:
    text = "step,training_loss,own/metric\n1,3,0.5\n2,2,0.75\n"
    found = Page(page(support.report(2, results=text)))
    assert "own/metric" in found.text
    assert len(found.of("svg")) == 2


def test_columns_that_were_not_measured_are_left_out() -> None:
    text = support.results(50, validation=False)
    found = Page(page(support.report(50, results=text, dataset=support.without_validation())))
    assert "validation_loss" not in found.text
    assert "Classification" not in found.text


def test_nothing_is_loaded_from_anywhere(whole: Page) -> None:
    loading = {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    assert not loading & {tag for tag, _ in whole.elements}
    for _, attributes in whole.elements:
        assert not {"src", "href", "xlink:href", "srcset", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    text = page(full())
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import", text)


def test_the_policy_allows_the_own_style_and_nothing_else(whole: Page) -> None:
    [policy] = [a["content"] for a in whole.of("meta") if "http-equiv" in a]
    [style] = re.findall(r"<style>(.*?)</style>", page(full()), re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def hostile() -> ReportData:
    """A report in which every text from users is an attack."""
    run = support.run()
    whole = support.dataset(advice=[HOSTILE])
    inputs = {"train": InputFile(uri=HOSTILE, etag=HOSTILE, size=1, sha256="")}
    return full(
        name=HOSTILE,
        published=HOSTILE,
        license=HOSTILE,
        run=run.replace(
            base=run.base.replace(name=HOSTILE, uri=HOSTILE, root=HOSTILE),
            versions={HOSTILE: HOSTILE},
            precision=HOSTILE,
            method=run.method.replace(type="lora", targets=[HOSTILE]),
        ),
        dataset=whole.replace(source=whole.source.replace(inputs=inputs)),
        results=f"step,training_loss,{HOSTILE},classification/{HOSTILE}\n1,2,3,4\n2,3,4,{HOSTILE}\n",
        samples=[Sample(prompt=HOSTILE, expected=HOSTILE, before=HOSTILE, after=HOSTILE)],
        confusion=ConfusionMatrix(labels=[HOSTILE, "b"], counts=[[1, 9], [0, 3]]),
        attempts=[Attempt(number=1, to_step=2, seconds=1, ended=HOSTILE)],
        failure=Failure(code=HOSTILE, message=HOSTILE, hint=HOSTILE),
    )


def test_text_from_users_is_never_markup(whole: Page) -> None:
    found = Page(page(hostile()))
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in whole.elements} | {"small"}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
    assert found.text.count("<script>alert(1)</script>") >= 15
    assert "{{ 7*7 }}" in found.text
    assert " 49 " not in found.text


def test_one_step_is_a_report() -> None:
    data = support.report(
        1,
        results=support.results(1, epochs=1, validation=False),
        dataset=support.without_validation(),
        epochs=support.epoch_metrics(1, [3.2], [None]),
    )
    found = Page(page(data))
    assert len(found.of("svg")) == 6
    assert len(found.of("circle")) == 6
    assert "0.8022 at step 1" in found.text


def test_no_step_is_a_report_that_says_so() -> None:
    failure = Failure(code="NanLoss", message="the loss is no number at step 1")
    found = Page(page(support.report(0, results="", epochs=[], name=None, failure=failure)))
    assert "team/tiny" in found.text
    assert "the loss is no number at step 1" in found.text
    assert "The run completed no step." in found.text
    assert found.of("svg") == []


def test_an_empty_validation_file_is_none() -> None:
    whole = support.dataset()
    splits = {**whole.splits, "validation": SplitCounts(examples=0, tokens=0)}
    data = support.report(
        results=support.results(1000, validation=False),
        dataset=whole.replace(splits=splits),
        epochs=support.epoch_metrics(1000, [2.0, 1.0], [None, None]),
        confusion=ConfusionMatrix(labels=[], counts=[]),
    )
    found = Page(page(data))
    assert "Add a validation file" in found.text
    assert "Confusion matrix" not in found.text


def test_losses_that_are_no_number_are_crosses() -> None:
    changes = {7: {"training_loss": float("nan")}, 9: {"training_loss": float("inf")}}
    found = Page(page(support.report(20, results=support.results(20, changes=changes))))
    assert found.text.count("×") == 2
    assert "training is not a number, step 7" in found.text


@pytest.mark.slow
def test_50_000_steps_are_under_a_megabyte() -> None:
    text = page(full(50_000, samples=[Sample(prompt="p" * 10**6, expected="e" * 10**6)] * 6))
    assert len(text.encode()) < 1_000_000
    assert "992,000 characters omitted" not in text
    assert "996,000 characters omitted" in text
    Page(text)


def test_the_same_data_gives_the_same_bytes() -> None:
    assert page(full()) == page(full())


def test_a_report_survives_being_stored() -> None:
    assert page(ReportData.model_validate_json(full().to_json())) == page(full())


def test_a_continued_model_s_former_figures_stand_beside_its_own() -> None:
    before = EpochMetrics(epoch=0, step=0, validation_loss=2.5, validation_token_accuracy=0.25)
    found = Page(page(full(before=before))).text
    assert "whole file; 2.5 before" in found
    assert "whole file; 25.0% before" in found
    assert "whole file; " not in Page(page(full())).text


def test_metrics_of_classes_are_percentages_up_to_100() -> None:
    text = "step,training_loss,classification/accuracy,classification/weighted_f1_score\n"
    text += "5,1.0,0.9804,0.9804\n10,0.9,0.9804,0.9804\n"
    found = Page(page(support.report(10, results=text, epochs=[]))).texts
    assert "accuracy: always 98.0%" in found
    assert "100%" in found
    assert not {"1.5", "150%"} & set(found)
    assert found.count("98.0% ") == 2  # the tiles


def test_the_legend_distinguishes_one_batch_from_the_whole_file(whole: Page) -> None:
    assert {"validation, one batch", "validation, whole file"} <= set(whole.texts)
    assert "Compare the large dots" in whole.text
    data = support.report(results=support.results(1000, validation=False), epochs=[])
    assert "large dots" not in Page(page(data)).text


def test_no_text_requires_a_mouse(whole: Page) -> None:
    assert "Point at" not in whole.text
    assert "The text under each chart has the main values" in whole.text
