"""The prepare Job with several training files, against moto."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from finetune_api.names import Reason
from finetune_api.outcome import Prepared
from finetune_api.training_files import TrainingFile, TrainingFileCounts
from finetune_api.uris import S3Uri
from finetune_data.prepare import epoch_files
from finetune_data.tokenize.dataset import Dataset, DatasetSource, fetch_dataset
from finetune_storage.s3 import Storage
from tests.data.builders import examples, jsonl, prepare_task, put_folder
from tests.data.test_prepare import REUSED, Job

OLD, NEW = examples(30), examples(4, 100)


@pytest.fixture
def job(storage: Storage, bucket: str, model_folder: Path, tmp_path: Path) -> Job:
    """A Job with a base model, and with the files old.jsonl and new.jsonl."""
    put_folder(storage, model_folder, S3Uri(bucket, "model"))
    made = Job(storage, bucket, tmp_path)
    made.put("old.jsonl", jsonl(OLD))
    made.put("new.jsonl", jsonl(NEW))
    return made


def files(job: Job, *given: tuple[str, float | None]) -> dict[str, object]:
    """The fields of a task. given: name and weight of each file."""
    listed = [TrainingFile(uri=f"s3://{job.bucket}/{name}", weight=w) for name, w in given]
    return {"training_file": listed[0].uri, "training_files": listed}


def fetch(job: Job, prepared: Prepared) -> Dataset:
    uri = S3Uri.parse(prepared.dataset)
    return fetch_dataset(uri, job.folder / uri.key.rpartition("/")[2], job.storage)


def tokens_of(dataset: Dataset) -> list[tuple[int, ...]]:
    return [tuple(dataset.train.example(i)[0].tolist()) for i in range(len(dataset.train))]


def encoded(model_folder: Path, rows: list[dict[str, str]]) -> list[tuple[int, ...]]:
    """The tokens of rows, as the tokenizers library encodes prompt and completion."""
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [[tokenizer.encode(row[key]).ids for key in ("prompt", "completion")] for row in rows]
    end = tokenizer.token_to_id("</s>")
    return [(*prompt, *completion, end) for prompt, completion in ids]


@pytest.mark.parametrize("block", [1, 50, 1_000_000])
def test_an_epoch_has_three_old_examples_for_each_correction(
    job: Job, model_folder: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(epoch_files, "BLOCK_TOKENS", block)
    monkeypatch.setattr(epoch_files, "BLOCK_ROWS", 3 if block < 1000 else 10_000)
    found = job.prepared(**files(job, ("old.jsonl", 3), ("new.jsonl", 1)))
    assert (found.training_examples, found.steps) == (40, 40 * 4)
    assert found.training_files == [
        TrainingFileCounts(examples=30, epoch_examples=30),
        TrainingFileCounts(examples=4, epoch_examples=10),
    ]
    dataset = fetch(job, found)
    old, new = encoded(model_folder, OLD), encoded(model_folder, NEW)
    times = Counter(tokens_of(dataset))
    assert {times[tokens] for tokens in old} == {1}
    assert sorted(times[tokens] for tokens in new) == [2, 2, 3, 3]
    assert sum(times.values()) == 40
    assert found.training_tokens == int(dataset.train.lengths.sum())
    counts = dataset.manifest.splits["train"]
    assert (counts.examples, counts.lines, counts.skipped_lines) == (40, 34, 0)
    assert counts.longest_example == dataset.longest
    assert counts.prompt_tokens == int((dataset.train.roles == 1).sum())
    shares = dataset.manifest.training_files
    assert shares is not None
    assert [(s.input, s.weight, s.examples, s.epoch_examples) for s in shares] == [
        ("train-0", 3, 30, 30),
        ("train-1", 1, 4, 10),
    ]
    known = dataset.manifest.source.inputs
    assert [(name, known[name].uri) for name in known] == [
        ("train-0", f"s3://{job.bucket}/old.jsonl"),
        ("train-1", f"s3://{job.bucket}/new.jsonl"),
    ]
    assert all(len(file.sha256) == 64 for file in known.values())


def test_without_weights_the_files_follow_each_other(job: Job, model_folder: Path) -> None:
    found = job.prepared(**files(job, ("new.jsonl", None), ("old.jsonl", None)))
    assert tokens_of(fetch(job, found)) == encoded(model_folder, [*NEW, *OLD])


@pytest.mark.slow
def test_equal_files_and_weights_make_equal_bytes_and_others_another_dataset(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = files(job, ("old.jsonl", 3), ("new.jsonl", 1))
    first = job.prepared(**mixed)
    capsys.readouterr()
    assert job.prepared(**mixed) == first
    assert REUSED in capsys.readouterr().out
    run = prepare_task(job.bucket).run
    again = job.prepared(**mixed, run=run.replace(output=f"s3://{job.bucket}/other"))
    digests = [fetch(job, each).manifest.files for each in (first, again)]
    assert digests[0] == digests[1]
    assert again.dataset != first.dataset
    others = [
        job.prepared(**files(job, ("old.jsonl", 3), ("new.jsonl", 2))),
        job.prepared(**files(job, ("new.jsonl", 1), ("old.jsonl", 3))),
        job.prepared(**files(job, ("old.jsonl", None), ("new.jsonl", None))),
        job.prepared(training_file=f"s3://{job.bucket}/old.jsonl"),
    ]
    assert len({found.dataset for found in (first, *others)}) == 5


def test_a_single_file_has_the_dataset_that_it_always_had(job: Job) -> None:
    single = job.prepared(training_file=f"s3://{job.bucket}/old.jsonl")
    source = fetch(job, single).manifest.source
    assert "weights" not in source.to_dict()
    known = source.inputs["train"]
    before = DatasetSource(
        tokenizer_sha256=source.tokenizer_sha256,
        context_length=source.context_length,
        inputs={"train": known},
    )
    assert single.dataset.endswith(before.key("any"))
    assert single.training_files is None
    listed = job.prepared(**files(job, ("old.jsonl", 5)))
    assert listed == single


def test_a_finding_names_its_file_and_all_files_are_checked(job: Job) -> None:
    job.put("new.jsonl", jsonl([*NEW, "x"]))
    job.put("old.jsonl", jsonl([*OLD, "{}", "y"]))
    outcome, task = job.run(**files(job, ("old.jsonl", 3), ("new.jsonl", 1)))
    failure = outcome.failure
    assert failure is not None
    assert (failure.code, failure.param) == (Reason.INVALID_DATA, "trainingFiles[0]")
    assert failure.message.startswith(f"trainingFiles[0] s3://{job.bucket}/old.jsonl, line 31")
    assert failure.lines is not None
    assert failure.lines[2].startswith("trainingFiles[1], line 5, column 1: not valid JSON")
    report = job.storage.read_bytes(task.run.layout.data_report).decode().splitlines()
    found = [(entry["param"], entry["line"]) for entry in map(json.loads, report)]
    assert found == [("trainingFiles[0]", 31), ("trainingFiles[0]", 32), ("trainingFiles[1]", 5)]
    skipped = job.prepared(**files(job, ("old.jsonl", 3), ("new.jsonl", 1)), data_tolerance=0.5)
    assert (skipped.skipped_lines, skipped.training_examples) == (3, 40)


def test_copies_and_contradictions_are_found_across_files(job: Job) -> None:
    wrong = {"prompt": OLD[0]["prompt"], "completion": " another answer"}
    job.put("new.jsonl", jsonl([*NEW, OLD[6], wrong]))
    advice = job.prepared(**files(job, ("old.jsonl", 3), ("new.jsonl", 1))).advice or []
    copy = "trainingFiles[1], line 5 repeats trainingFiles[0], line 7"
    assert any(copy in sentence for sentence in advice), advice
    contradiction = "1 prompt has more than one completion: the model cannot get all of them right"
    assert any(sentence.startswith(contradiction) for sentence in advice), advice


def test_a_file_that_is_too_small_for_its_weight_is_refused_with_weights_that_work(
    job: Job,
) -> None:
    job.put("new.jsonl", jsonl(examples(1, 100)))
    failure = job.failure(**files(job, ("old.jsonl", 1), ("new.jsonl", 4)))
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "trainingFiles[1].weight")
    assert failure.message == (
        f"trainingFiles[1].weight: s3://{job.bucket}/new.jsonl has only 1 example, each of which "
        "would occur 120 times in an epoch; at most 100 are allowed"
    )
    assert failure.hint == "use the weights 1 and 3.33, or add examples to the file"
    found = job.prepared(**files(job, ("old.jsonl", 1), ("new.jsonl", 3.33)))
    assert found.training_examples == 130
    repeated = [text for text in found.advice or [] if "overfitting" in text]
    assert len(repeated) == 1
    assert "trainingFiles[1] (1 example) up to 100 times, so" in repeated[0]
    assert "up to 400 times in all epochs" in repeated[0]


def test_a_file_is_listed_once_however_it_is_spelled(job: Job) -> None:
    failure = job.failure(**files(job, ("old.jsonl", 1), ("old.jsonl/", 1)))
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "trainingFiles[1].uri")


def test_a_missing_file_names_its_place_in_the_list(job: Job) -> None:
    failure = job.failure(**files(job, ("old.jsonl", 1), ("nothing.jsonl", 1)))
    assert (failure.code, failure.param) == (Reason.DATA_NOT_FOUND, "trainingFiles[1]")


# It writes an answer differently once more messages follow, so that each becomes an example.
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}earlier {% endif %}{{ m.content }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def test_the_training_examples_that_conversations_become_are_weighted(job: Job) -> None:
    job.storage.write_bytes(S3Uri(job.bucket, "model/chat_template.jinja"), TEMPLATE.encode())
    question, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}
    chats = [{"messages": [question, answer] * (1 + n % 2)} for n in range(4)]
    job.put("chats.jsonl", jsonl(chats))
    job.put("more.jsonl", jsonl(chats[1:2]))
    mixed = files(job, ("new.jsonl", 1), ("chats.jsonl", 2), ("more.jsonl", 1))
    found = job.prepared(**mixed)
    assert [(f.examples, f.epoch_examples) for f in found.training_files or []] == [
        (4, 4),
        (6, 8),
        (2, 4),
    ]
    manifest = fetch(job, found).manifest
    assert manifest.splits["train"].lines == 9
    assert [(end.text, end.how, end.answers) for end in manifest.ends] == [
        ("</s>", "template", 8),
        ("</s>", "added", 4),
    ]
    advice = "\n".join(found.advice or [])
    assert "trainingFiles[1] has chats, and trainingFiles[0] has prompts and completions" in advice
    assert "4 conversations of trainingFiles[1] became 6 training examples" in advice
    assert "1 conversation of trainingFiles[2] became 2 training examples" in advice
