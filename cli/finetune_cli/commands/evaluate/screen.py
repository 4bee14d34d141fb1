"""The screen of `finetune evaluate`: metrics of one or two models, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from finetune_cli.terminal.console import Screen
from finetune_data.read.findings import counted, shown
from finetune_evaluation.names import BRIER, EXACT_MATCH

if TYPE_CHECKING:
    from finetune_cli.commands.evaluate.questions import Questions
    from finetune_evaluation.metrics import Difference, Graded
    from finetune_evaluation.rows import Question

TEXT = 32  # characters of a reference or an answer
CONFUSIONS = 5


class EvaluationScreen(Screen):
    """Prints the result to stdout, and what precedes it to stderr."""

    def rows(self, file: str, questions: Questions, classes: Sequence[str]) -> None:
        name = file if "://" in file else PurePath(file).name
        kind = f", {counted(len(classes), 'class')}" if len(classes) == 1 else ""
        if len(classes) > 1:
            kind = f", {len(classes):,} classes"
        self.note(f"{name}: {counted(len(questions.found), 'row')}{kind}")
        for reason, count in questions.left_out.most_common():
            self.note(f"{counted(count, 'row')} left out: {reason}", "yellow")

    def metrics(
        self,
        models: Sequence[tuple[str, Mapping[str, float]]],
        difference: Mapping[str, Difference],
    ) -> None:
        """One line for each metric, and one column for each model."""
        headings = ["METRIC", *(name for name, _ in models)]
        if difference:
            headings.append("DIFFERENCE")
        rows = []
        for name in models[0][1]:
            row = [name, *(_figure(name, found[name]) for _, found in models)]
            if difference:
                row.append(_difference(name, difference[name]))
            rows.append(row)
        self.table(headings, rows)
        if difference:
            self.note("± is the 95 % confidence interval of the mean difference over these rows.")

    def mistakes(
        self,
        questions: Sequence[Question],
        answers: Sequence[Graded],
        most: int,
        *,
        is_classes: bool,
    ) -> None:
        """The most frequent confusions of classes, and the first wrong answers."""
        from finetune_evaluation.metrics import confusions

        wrong = [
            (question, answer)
            for question, answer in zip(questions, answers, strict=True)
            if not answer.grades[EXACT_MATCH]
        ]
        if not wrong or not most:
            return
        self.say()
        if is_classes:
            pairs = confusions(answers, CONFUSIONS)
            self.table(
                ("REFERENCE", "ANSWER", "ROWS"),
                [(_text(right), _text(given), f"{count:,}") for right, given, count in pairs],
                "ANSWER",
            )
            self.say()
        first = wrong[:most]
        verb = "answers differs" if len(wrong) == 1 else "answers differ"
        more = f" The first {most:,}:" if len(wrong) > most else ""
        self.say(f"{len(wrong):,} of {len(answers):,} {verb} from the reference.{more}")
        self.table(
            ("LINE", "REFERENCE", "ANSWER", "PROMPT"),
            [
                (f"{answer.line}", _text(answer.reference), _text(answer.answer), question.summary)
                for question, answer in first
            ],
            "PROMPT",
        )


def _text(text: str) -> str:
    return shown(" ".join(text.split()), TEXT)


def _figure(name: str, value: float) -> str:
    return f"{value:.3f}" if name == BRIER else f"{100 * value:.1f} %"


def _difference(name: str, found: Difference) -> str:
    """In percentage points; a Brier score is no share."""
    factor, digits = (1, 3) if name == BRIER else (100, 1)
    margin = "" if found.margin is None else f" ± {factor * found.margin:.{digits}f}"
    return f"{factor * found.value:+.{digits}f}{margin}"
