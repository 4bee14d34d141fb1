"""`finetune evaluate`: asks a model the questions of a data file, and grades its answers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune_cli.artifacts.local_models import (
    BASE,
    find_base,
    find_source,
    loaded,
)
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.evaluate.questions import (
    Questions,
    read_questions,
    read_schema,
    write_answers,
)
from finetune_cli.commands.evaluate.screen import EvaluationScreen
from finetune_cli.machine import INFERENCE, require_packages
from finetune_cli.options import cluster_flags, output_flag, reading_flags
from finetune_cli.terminal.console import show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_NOT_BETTER, EXIT_USAGE
from finetune_evaluation.names import CLASS_METRICS, COMPARABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune_data.read.reader import ReadOptions
    from finetune_evaluation.grading import Grade
    from finetune_evaluation.metrics import Difference, Graded, Measured
    from finetune_serving.completion.local_model import LocalModel

EPILOG = """
\b
Examples:
  finetune evaluate tone -f valid.jsonl
  finetune evaluate tone -f valid.jsonl --against base
  finetune evaluate ./new -f valid.jsonl --against ./old --must-beat "exact match"
  finetune evaluate extract -f valid.jsonl --schema invoice.json
"""


@dataclass(frozen=True)
class EvaluateOptions:
    """The command line of `finetune evaluate`."""

    model: str
    file: str
    against: str | None
    must_beat: str | None
    pattern: str | None
    schema: Path | None
    limit: int | None
    max_tokens: int | None
    show: int
    answers: Path | None
    base: str | None
    cpu: bool
    format_name: str | None
    encoding: str | None
    sheet: str | None
    prompt_column: str | None
    completion_column: str | None
    output: str | None
    target: ClusterTarget

    @property
    def read_options(self) -> ReadOptions:
        from finetune_data.read.reader import ReadOptions

        return ReadOptions(
            format=self.format_name,
            encoding=self.encoding,
            sheet=self.sheet,
            prompt_column=self.prompt_column,
            completion_column=self.completion_column,
        )


@dataclass(frozen=True)
class Task:
    """What each model is asked, and how its answers are graded. classes: empty for free text."""

    questions: Questions
    grades: Mapping[str, Grade]
    classes: Sequence[str]


@dataclass(frozen=True)
class Evaluated:
    """A model with its answers and its metrics."""

    name: str
    answers: Sequence[Graded]
    measured: Measured


@click.command(epilog=EPILOG)
@click.argument("model")
@click.option(
    "-f",
    "--file",
    required=True,
    metavar="FILE",
    help="Data file with questions and reference answers, such as the validation file: any file "
    "that a fine-tune can have, a folder, a pattern, or an S3 address.",
)
@click.option(
    "--against",
    metavar="MODEL",
    help="Evaluate another model on the same rows and show the differences. `base` is the base "
    "model of MODEL.",
)
@click.option(
    "--must-beat",
    type=click.Choice(COMPARABLE),
    metavar="METRIC",
    help=f"Exit with code {EXIT_NOT_BETTER} unless MODEL is better than --against in this metric: "
    f"{', '.join(COMPARABLE[:-1])}, or {COMPARABLE[-1]}.",
)
@click.option(
    "--pattern", metavar="REGEX", help="Also measure how many answers contain this expression."
)
@click.option(
    "--schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also measure how many answers are JSON that conforms to this JSON Schema.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Use only the first N rows.")
@click.option(
    "-M",
    "--max-tokens",
    type=click.IntRange(1),
    metavar="COUNT",
    help="Maximum number of tokens in an answer.  [default: a quarter more than the longest "
    "reference has]",
)
@click.option(
    "--show",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Show the first N answers that differ from their references.",
)
@click.option(
    "--answers",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write each answer and its grades to a JSON Lines file.",
)
@click.option(
    "--base", metavar="MODEL", help="Base model for a folder that contains only an adapter."
)
@click.option("--cpu", is_flag=True, help="Use the CPU even if there are GPUs.")
@reading_flags
@output_flag
@cluster_flags
def command(**given: Any) -> None:
    """Grade the answers of a fine-tuned model on this machine.

    MODEL is a folder, a name, or an S3 address, as in `complete`. The model answers each row of
    FILE greedily, so a second run has the same result. In a chat, it answers the messages before
    the last one.

    An answer matches exactly if it equals the reference, without the whitespace around both. Token
    F1 compares their words in any order. If the references are classes, which occur twice or more
    on average, F1 scores and the calibration of the probabilities are measured as well.
    """
    options = EvaluateOptions(**given)
    if options.must_beat and not options.against:
        raise click.UsageError("--must-beat requires --against: the model to beat")
    if options.answers is not None and not options.answers.parent.is_dir():
        raise click.UsageError(f"--answers: there is no folder {options.answers.parent}")
    require_packages(INFERENCE, "evaluating a model on this machine")
    with tempfile.TemporaryDirectory(prefix="finetune-") as name:
        _evaluate(options, EvaluationScreen(), Path(name))


def _evaluate(options: EvaluateOptions, screen: EvaluationScreen, folder: Path) -> None:
    """folder: for downloads."""
    from finetune_evaluation.grading import grades_of
    from finetune_evaluation.metrics import classes_of, compare

    try:
        grades = grades_of(options.pattern, read_schema(options.schema))
    except ValueError as error:
        raise CommandError(str(error), code=EXIT_USAGE) from error
    questions = read_questions(options.file, options.read_options, options.limit, folder)
    classes = classes_of([question.reference for question in questions.found])
    task = Task(questions, grades, classes)
    _check_metric(options.must_beat, task)
    screen.rows(options.file, questions, classes)
    source = find_source(options.model, options.base, options.target, screen)
    models = [source]
    if options.against == BASE:
        models.append(find_base(source, screen))
    elif options.against:
        models.append(find_source(options.against, None, options.target, screen))
    found = [_ask(options, screen, model, task) for model in models]
    difference = compare(found[0].measured, found[1].measured) if len(found) > 1 else {}
    if options.answers is not None:
        write_answers(options.answers, [_row(it, answer) for it in found for answer in it.answers])
    if options.output:
        show_objects(_as_object(options.file, task, found, difference), options.output)
    else:
        screen.metrics([(it.name, it.measured.metrics) for it in found], difference)
        screen.mistakes(questions.found, found[0].answers, options.show, is_classes=bool(classes))
        if options.answers is not None:
            screen.note(f"answers: {options.answers}")
    if options.must_beat:
        _require_better(options.must_beat, found, difference)


def _check_metric(name: str | None, task: Task) -> None:
    """Raise CommandError, before a model is loaded, for a metric that is not measured."""
    if name is None or name in task.grades or (task.classes and name in CLASS_METRICS):
        return
    is_of_classes = name in CLASS_METRICS
    why = "the references are no classes" if is_of_classes else "it needs --pattern or --schema"
    raise CommandError(f"--must-beat: {name} is not measured: {why}", code=EXIT_USAGE)


def _ask(
    options: EvaluateOptions, screen: EvaluationScreen, source: LocalModel, task: Task
) -> Evaluated:
    from finetune_data.models.base_models import model_positions
    from finetune_data.tokenize.confined_tokenizer import ConfinedTokenizer
    from finetune_evaluation.answering import answers, default_tokens
    from finetune_evaluation.metrics import measure
    from finetune_serving.completion.prompts import RefusedMessagesError

    questions = task.questions.found
    tokenizer = ConfinedTokenizer(source.folder, source.name)
    with (
        loaded(source, cpu=options.cpu) as model,
        screen.progress(f"asking {source.published_name}") as progress,
    ):
        try:
            graded = list(
                answers(
                    model,
                    tokenizer,
                    source,
                    questions,
                    task.grades,
                    max_tokens=options.max_tokens or default_tokens(tokenizer, questions),
                    context=model_positions(source.folder),
                    progress=progress,
                )
            )
        except RefusedMessagesError as error:
            raise CommandError(
                str(error), f"the chat template of {source.name} rejects these messages"
            ) from error
    return Evaluated(source.published_name, graded, measure(graded, task.classes))


def _require_better(
    name: str, found: Sequence[Evaluated], difference: Mapping[str, Difference]
) -> None:
    from finetune_evaluation.metrics import is_better

    if is_better(name, difference[name]):
        return
    own, other = (it.measured.metrics[name] for it in found)
    raise CommandError(
        f"{found[0].name} does not beat {found[1].name}: its {name} is {own:.4f}, and that of the "
        f"other {other:.4f}",
        code=EXIT_NOT_BETTER,
    )


def _row(it: Evaluated, answer: Graded) -> dict[str, Any]:
    return {
        "model": it.name,
        "line": answer.line,
        "reference": answer.reference,
        "answer": answer.answer,
        "probability": answer.probability,
        "hasEnded": answer.has_ended,
        "grades": dict(answer.grades),
    }


def _as_object(
    file: str,
    task: Task,
    found: Sequence[Evaluated],
    difference: Mapping[str, Difference],
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "file": file,
        "rows": len(task.questions.found),
        "leftOut": dict(task.questions.left_out),
        "classes": list(task.classes),
        "models": [{"model": it.name, "metrics": it.measured.metrics} for it in found],
    }
    if difference:
        made["difference"] = {
            name: {"value": it.value, "margin": it.margin} for name, it in difference.items()
        }
    return made
