"""The model card: front matter that Hugging Face reads, and Markdown that users cannot alter."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.evaluation.confusion import ConfusionMatrix
from finetune_trainer.reporting.card import card, read_license
from finetune_trainer.reporting.markdown import block, code, plain, scalar
from finetune_trainer.reporting.report_data import ReportData, Sample
from tests.trainer.reporting import support

HOSTILE = "`` | ---\n# pwned <script>alert(1)</script> [x](http://evil.example) \x1b\u2028 ***"


def full(**changes: Any) -> ReportData:
    values: dict[str, Any] = {
        "results": support.results(1000, asked=support.BINARY),
        "confusion": ConfusionMatrix(labels=[" no", " yes"], counts=[[90, 10], [20, 80]]),
        "samples": [Sample(prompt="Is it?", expected=" yes", before=" The", after=" yes")],
        "dataset": support.dataset(advice=["2 rows are copies."]),
    }
    return support.report(**(values | changes))


def on_hub(data: ReportData) -> ReportData:
    base = data.run.base.replace(uri="hf://acme/tiny-llama@abc123")
    return data.replace(run=data.run.replace(base=base))


def front_matter(text: str) -> dict[str, Any]:
    found = re.fullmatch(r"---\n(.*?)\n---\n\n# .*", text, re.DOTALL)
    assert found
    value: dict[str, Any] = yaml.safe_load(found[1])
    return value


def test_hugging_face_reads_the_front_matter() -> None:
    from huggingface_hub import ModelCard

    text = card(on_hub(full(license="apache-2.0")))
    read = ModelCard(text, ignore_metadata_errors=False).data
    assert read.base_model == "acme/tiny-llama"
    assert read.library_name == "transformers"
    assert read.pipeline_tag == "text-generation"
    assert read.license == "apache-2.0"
    assert read.metrics == ["accuracy", "f1", "precision", "recall", "roc_auc"]
    assert read.eval_results is not None
    values = {result.metric_name: result.metric_value for result in read.eval_results}
    assert values["validation_token_accuracy"] == 0.8
    assert values["classification/f1.0"] == pytest.approx(0.89, abs=0.01)
    assert {result.dataset_name for result in read.eval_results} == {"s3://acme/validation.jsonl"}


def test_a_model_that_is_not_on_the_hub_names_no_base_there_and_no_license_is_made_up() -> None:
    text = card(full())
    found = front_matter(text)
    assert not {"base_model", "license"} & set(found)
    assert "`ada` (`s3://tests/models/tiny`)" in text
    assert "license of the base model applies" in text


def test_without_validation_no_metric_is_claimed() -> None:
    data = support.report(
        results=support.results(1000, validation=False),
        dataset=support.without_validation(),
        epochs=support.epoch_metrics(1000, [2.0, 1.0], [None, None]),
    )
    assert not {"metrics", "model-index"} & set(front_matter(card(data)))


def test_it_says_the_same_as_the_report() -> None:
    text = card(full())
    for known in (
        "# ada:ft-your-org:custom-model-name-2026-02-15-04-21-04",
        "| Validation loss | 0.94 (whole file) |",
        "| 4 | 1,000 | 0.7 | 0.94 | 80.0% |",
        "| `yes` | 100 | 80.0% | 88.9% |",
        "`s3://acme/train.jsonl`",
        "1" * 64,
        "2 rows are copies.",
        "| learningRateMultiplier | 0.1 |",
        "After:\n\n```text\n yes\n```",
    ):
        assert known in text


def test_an_adapter_is_told() -> None:
    run = support.run()
    text = card(full(run=run.replace(method=run.method.replace(type="lora", rank=8))))
    assert "lora" in front_matter(text)["tags"]
    assert "LoRA with rank 8" in text
    assert "`adapter/`" in text


def test_hostile_texts_stay_texts() -> None:
    run = support.run()
    whole = support.dataset(advice=[HOSTILE])
    inputs = {name: file.replace(uri=HOSTILE) for name, file in whole.source.inputs.items()}
    text = card(
        full(
            name=HOSTILE,
            license=HOSTILE,
            run=run.replace(
                base=run.base.replace(name=HOSTILE), versions={HOSTILE: HOSTILE}, precision=HOSTILE
            ),
            dataset=whole.replace(source=whole.source.replace(inputs=inputs), advice=[HOSTILE]),
            samples=[Sample(prompt=HOSTILE + "\n```\n# out", expected="e", after=HOSTILE)],
            confusion=ConfusionMatrix(labels=[HOSTILE, "b"], counts=[[1, 9], [0, 3]]),
        )
    )
    found = front_matter(text)
    assert found["license"] == HOSTILE.replace("\x1b", "\ufffd").replace("\u2028", "\ufffd")
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    body = outside.split("\n---\n", 1)[1]
    assert not re.search(r"^# pwned|^# out", body, re.MULTILINE)
    without_code = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", body)
    assert "<script>" not in re.sub(r"\\[<>]", "", without_code)
    assert "](http" not in without_code
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in rows)


@given(st.text())
def test_any_text_is_one_yaml_string(text: str) -> None:
    found = yaml.safe_load(scalar(text))
    assert isinstance(found, str)
    assert len(found) == len(text)


@given(st.text())
def test_code_spans_and_plain_words_stay_on_their_line(text: str) -> None:
    for written in (code(text), plain(text)):
        assert len(written.splitlines()) <= 1
        assert not re.search(r"(?<!\\)\|", written)


@given(st.text(alphabet="`ab\n"))
def test_a_block_ends_only_at_its_end(text: str) -> None:
    first, *inside, last = block(text).split("\n")
    assert first == f"{last}text"
    assert not [line for line in inside if line.startswith(last)]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model", "apache-2.0"),
        ("---\r\nlanguage: en\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("---\nlicense:\n- mit\n---\n", None),
        ("---\nlicense: [x](http://evil.example)\n---\n", None),
        ("license: mit\n", None),
        ("", None),
    ],
)
def test_the_license_of_a_base_model_is_what_its_card_names(text: str, known: str | None) -> None:
    assert read_license(text) == known


def test_bare_addresses_are_no_links() -> None:
    assert plain("http://a.example www.b.example ada:ft-x") == (
        r"http\://a.example www\.b.example ada:ft-x"
    )


def test_one_step_has_a_card() -> None:
    data = support.report(
        1,
        results=support.results(1, epochs=1, validation=False),
        dataset=support.without_validation(),
        epochs=[],
    )
    assert "| Training loss | 0.8022 (last step) |" in card(data)
