"""The model card, `model/README.md`: the content of the report in the format of Hugging Face.

The front matter names the base model only if it comes from the Hugging Face Hub: an `s3://` model
has no name there, and a catalog name could be the name of an unrelated model. It has a license only
if the license is known.
"""

import json
import re
from collections.abc import Iterator

from finetune_api.uris import HubUri, parse_model_uri
from finetune_trainer.reporting import facts
from finetune_trainer.reporting.facts import Fact
from finetune_trainer.reporting.formatting import count, excerpt, number, percent
from finetune_trainer.reporting.markdown import block, code, plain, scalar, table
from finetune_trainer.reporting.metric_curves import Curves
from finetune_trainer.reporting.report_data import ReportData

CARD, REPORT = "README.md", "report.html"
SAMPLES_SHOWN = 3
CLASSES_SHOWN = 10
FRONT_MATTER_CHARACTERS = 100_000
# the Hub's names of metrics by column of results.csv
HUB_METRICS = {
    "validation_token_accuracy": "accuracy",
    "classification/accuracy": "accuracy",
    "classification/weighted_f1_score": "f1",
    "classification/f1.0": "f1",
    "classification/precision": "precision",
    "classification/recall": "recall",
    "classification/auroc": "roc_auc",
}


def card(data: ReportData) -> str:
    """Render YAML front matter and Markdown; text from users is in code spans or escaped."""
    curves = Curves.parse(data.results)
    sections = [
        "---\n" + "\n".join(_front_matter(data, curves)) + "\n---",
        f"# {plain(data.title)}",
        _introduction(data),
        *_metrics(data, curves),
        *_usage(data),
        *_epochs(data),
        *_classes(data),
        *_samples(data),
        "## Training",
        _fact_table(facts.model_facts(data)),
        "### Data",
        _fact_table(facts.data_facts(data)),
        *_training_files(data),
        *_findings(data),
        "### Hyperparameters",
        _fact_table(facts.parameter_facts(data)),
        "### Machines and software",
        _fact_table([*facts.machine_facts(data), *_time(data)]),
    ]
    return "\n\n".join(sections) + "\n"


def read_license(text: str) -> str | None:
    """Return the license in the front matter of a model card; None if it is missing or unclear."""
    found = re.match(r"---\r?\n(.*?)\n---", text[:FRONT_MATTER_CHARACTERS], re.DOTALL)
    named = found and re.search(
        r"""^license:[ \t]*(["']?)([\w.+-]+)\1[ \t\r]*$""", found[1], re.MULTILINE
    )
    return named[2] if named else None


def _front_matter(data: ReportData, curves: Curves) -> Iterator[str]:
    base = parse_model_uri(data.run.base.uri)
    if isinstance(base, HubUri):
        yield f"base_model: {scalar(base.repo)}"
        yield "base_model_relation: finetune"
    yield "library_name: transformers"
    yield "pipeline_tag: text-generation"
    if data.license:
        yield f"license: {scalar(data.license)}"
    tags = ["fine-tuned", "finetune-operator"]
    if data.run.method.type == "lora":
        tags.append("lora")
    if data.has_classes:
        tags.append("text-classification")
    yield "tags:"
    yield from (f"- {tag}" for tag in tags)
    yield from _results(data, curves)


def _results(data: ReportData, curves: Curves) -> Iterator[str]:
    """`metrics` and `model-index`, with the metrics of the whole validation file."""
    values = list(_measured(data, curves))
    if not values or data.validation is None:
        return
    yield "metrics:"
    yield from (f"- {kind}" for kind in dict.fromkeys(kind for _, kind, _ in values))
    known = data.dataset.source.inputs.get("validation")
    yield "model-index:"
    yield f"- name: {scalar(data.title)}"
    yield "  results:"
    yield "  - task:"
    yield "      type: text-generation"
    yield "    dataset:"
    yield f"      name: {scalar(known.uri if known else 'validation file')}"
    yield "      type: private"
    yield "    metrics:"
    for name, kind, value in values:
        yield f"    - type: {kind}"
        yield f"      name: {scalar(name)}"
        yield f"      value: {scalar(value)}"


def _measured(data: ReportData, curves: Curves) -> Iterator[tuple[str, str, float]]:
    """Column, the Hub's name of the metric, and last value."""
    last = data.epochs[-1] if data.epochs else None
    for column, kind in HUB_METRICS.items():
        value = getattr(last, column, None) if "/" not in column else curves.last(column)
        if value is not None:
            yield column, kind, value


def _introduction(data: ReportData) -> str:
    examples = data.training.examples
    epochs = data.run.hyperparameters.n_epochs
    text = (
        f"Fine-tuned from {code(data.run.base.name)} on {count(examples, 'example')} for "
        f"{count(epochs, 'epoch')}. [{REPORT}](../{REPORT}), next to the model's folder, has the "
        "curves and advice for the next run. `results.csv` has the metrics of every step."
    )
    if not data.license:
        text += " The license of the base model applies; the trainer could not determine it."
    return text


def _metrics(data: ReportData, curves: Curves) -> Iterator[str]:
    found = facts.final_metrics(data, curves)
    if found:
        yield "## Metrics"
        yield _fact_table(found)


def _usage(data: ReportData) -> Iterator[str]:
    yield "## Usage"
    yield f"Download the folder and load the model from it. {_prompt_rule(data)}"
    yield (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "./model"\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "model = AutoModelForCausalLM.from_pretrained(folder)\n"
        'inputs = tokenizer("the prompt", return_tensors="pt")\n'
        "output = model.generate(**inputs, max_new_tokens=64, do_sample=False)\n"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))\n'
        "```"
    )
    if data.run.method.type == "lora":
        yield "The LoRA weights are merged. `adapter/` has them separately, in PEFT format."


def _prompt_rule(data: ReportData) -> str:
    if data.dataset.separator:
        ending = json.dumps(data.dataset.separator, ensure_ascii=False)
        return f"Every prompt must end with {code(ending)}, as in the training file."
    return (
        "Prompts must end in the same way as in the training file. For a chat, use "
        "`tokenizer.apply_chat_template`."
    )


def _epochs(data: ReportData) -> Iterator[str]:
    if not data.epochs:
        return
    yield "## Epochs"
    yield table(
        ("Epoch", "Step", "Training loss", "Validation loss", "Token accuracy"),
        [
            (
                str(epoch.epoch),
                f"{epoch.step:,}",
                number(epoch.training_loss),
                number(epoch.validation_loss),
                percent(epoch.validation_token_accuracy),
            )
            for epoch in data.epochs
        ],
    )


def _classes(data: ReportData) -> Iterator[str]:
    confusion = data.confusion
    if confusion is None or not confusion.examples:
        return
    yield "## Classes"
    rows = []
    for row, label in enumerate(confusion.labels[:CLASSES_SHOWN]):
        recall, precision = confusion.recall(row), confusion.precision(row)
        examples = f"{sum(confusion.counts[row]):,}"
        rows.append((code(label), examples, percent(recall), percent(precision)))
    yield table(("Class", "Validation examples", "Recall", "Precision"), rows)
    if len(confusion.labels) > CLASSES_SHOWN:
        yield f"The other classes are in {REPORT}."


def _samples(data: ReportData) -> Iterator[str]:
    samples = [sample for sample in data.samples if sample.after is not None]
    if not samples:
        return
    yield "## Sample completions"
    if data.samples_note:
        yield data.samples_note
    for sample in samples[:SAMPLES_SHOWN]:
        for label, text in (
            ("Prompt", sample.prompt),
            ("Before", sample.before),
            ("After", sample.after),
            ("Expected", sample.expected),
        ):
            if text is not None:
                yield f"{label}:"
                yield block(excerpt(text) or "(empty)")


def _training_files(data: ReportData) -> Iterator[str]:
    rows = facts.training_file_rows(data)
    if rows:
        yield table(facts.SHARE_COLUMNS, [tuple(map(plain, row)) for row in rows])


def _findings(data: ReportData) -> Iterator[str]:
    if data.dataset.advice:
        yield "Findings in the data:"
        yield "\n".join(f"- {plain(sentence)}" for sentence in data.dataset.advice)


def _time(data: ReportData) -> list[Fact]:
    time = facts.process_time(data)
    return [time] if time else []


def _fact_table(found: list[Fact]) -> str:
    return table(("", ""), [(plain(fact.label), _value(fact)) for fact in found])


def _value(fact: Fact) -> str:
    write = code if fact.is_code else plain
    note = f" ({write(fact.note)})" if fact.note else ""
    return f"{write(fact.value)}{note}"
