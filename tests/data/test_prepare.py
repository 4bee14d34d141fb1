"""The whole prepare Job in this process, against moto."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.names import ENV_LOCAL_ROOT, Reason
from finetune_api.outcome import Failure, Outcome, Prepared
from finetune_api.tasks import MethodRef, PrepareTask
from finetune_api.uris import S3Uri
from finetune_data.prepare.job import prepare
from finetune_data.read.examples import COMPLETION, Row
from finetune_data.tokenize.dataset import fetch_dataset
from finetune_data.tokenize.loading import load_tokenizer
from finetune_storage.s3 import Storage
from finetune_storage.stream import ObjectStream
from tests.data.builders import (
    base_model,
    compress,
    encoded,
    examples,
    jsonl,
    prepare_task,
    put_folder,
    write_tokenizer,
)

REUSED = "reusing the dataset"


@pytest.fixture
def acme(storage: Storage, bucket: str, model_folder: Path) -> str:
    """A bucket with a base model's tokenizer."""
    put_folder(storage, model_folder, S3Uri(bucket, "model"))
    return bucket


class Job:
    """Writes files, runs the Job, and reads its results."""

    def __init__(self, storage: Storage, bucket: str, folder: Path) -> None:
        self.storage = storage
        self.bucket = bucket
        self.folder = folder
        self.runs = 0

    def put(self, name: str, data: bytes) -> str:
        uri = S3Uri(self.bucket, name)
        self.storage.write_bytes(uri, data)
        return str(uri)

    def run(self, **changes: Any) -> tuple[Outcome, PrepareTask]:
        self.runs += 1
        work = self.folder / str(self.runs)
        work.mkdir()
        task = prepare_task(self.bucket, **changes)
        outcome = prepare(task, self.storage, work)
        assert Outcome.parse(outcome.to_termination_message()) is not None
        return outcome, task

    def prepared(self, **changes: Any) -> Prepared:
        outcome, _ = self.run(**changes)
        assert outcome.failure is None, outcome.failure
        assert outcome.prepared is not None
        return outcome.prepared

    def datasets(self) -> list[str]:
        """The manifests of all datasets."""
        entries = self.storage.list(S3Uri(self.bucket, "out/team/datasets"))
        return [entry.key for entry in entries if entry.key.endswith("manifest.json")]

    def failure(self, **changes: Any) -> Failure:
        outcome, _ = self.run(**changes)
        assert outcome.failure is not None, outcome
        assert not self.datasets()
        return outcome.failure


@pytest.fixture
def job(storage: Storage, acme: str, tmp_path: Path) -> Job:
    return Job(storage, acme, tmp_path)


def test_a_valid_file_becomes_a_dataset(job: Job, model_folder: Path) -> None:
    rows = [*examples(20), {"prompt": "", "completion": "über 中"}]
    job.put("train.jsonl", jsonl(rows))
    valid = job.put("valid.jsonl.gz", compress(jsonl(examples(5, 100))))
    outcome, _ = job.run(validation_file=valid)
    found = outcome.prepared
    assert found is not None
    assert (found.training_examples, found.validation_examples) == (21, 5)
    assert (found.skipped_lines, found.steps) == (0, 21 * 4)
    assert found.hyperparameters.max_sequence_length == 64
    dataset = fetch_dataset(S3Uri.parse(found.dataset), job.folder / "fetched", job.storage)
    assert found.training_tokens == int(dataset.train.lengths.sum())
    tokenizer = load_tokenizer(model_folder, "tiny")
    read = [Row(line, row["prompt"], row["completion"]) for line, row in enumerate(rows, 1)]
    for index, example in enumerate(encoded(tokenizer, *read)):
        tokens, roles = dataset.train.example(index)
        assert (tokens.tolist(), roles.tobytes()) == (example.tokens, example.roles)
        assert roles[-1] == COMPLETION
    assert dataset.validation is not None
    assert len(dataset.validation) == 5
    assert dataset.manifest.source.inputs["train"].size == len(jsonl(rows))
    assert len(dataset.manifest.source.inputs["validation"].sha256) == 64
    assert (dataset.manifest.data_kind, dataset.manifest.separator) == (
        "conditional generation",
        None,
    )


@pytest.mark.parametrize(
    ("prompts", "separator"),
    [
        (["one\n\n###\n\n", "two\n\n###\n\n"], "\n\n###\n\n"),
        (["is one even ->", "is two even ->"], " ->"),
        (["one", "two"], None),
        (["one ->"], None),  # of a single prompt everything is common
    ],
)
def test_the_dataset_has_the_common_ending_of_all_prompts(
    job: Job, prompts: list[str], separator: str | None
) -> None:
    rows = [{"prompt": text, "completion": " yes" * n} for n, text in enumerate(prompts, 1)]
    job.put("train.jsonl", jsonl(rows))
    found = fetch_dataset(S3Uri.parse(job.prepared().dataset), job.folder / "found", job.storage)
    assert found.manifest.separator == separator


def test_a_retry_reuses_the_dataset_and_reports_the_same(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.put("train.jsonl", jsonl([*examples(20), "broken", *examples(1)]))
    first = job.prepared(data_tolerance=0.1)
    assert first.skipped_lines == 1
    assert first.advice is not None
    assert any("Skipped 1 of 22 lines of trainingFile" in sentence for sentence in first.advice)
    assert any("line 22 repeats line 1" in sentence for sentence in first.advice)
    capsys.readouterr()
    assert job.prepared(data_tolerance=0.1) == first
    assert REUSED in capsys.readouterr().out
    job.put("train.jsonl", jsonl(examples(30)))
    assert job.prepared(data_tolerance=0.1).training_examples == 30
    assert job.prepared(base=base_model(f"s3://{job.bucket}/model", context_length=32))


def test_another_tokenizer_makes_another_dataset(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.put("train.jsonl", jsonl(examples(3)))
    before = job.prepared().training_tokens
    other = write_tokenizer(tmp_path / "other", bos_token="<s>", has_start=True)
    put_folder(job.storage, other, S3Uri(job.bucket, "model"))
    assert job.prepared().training_tokens == before + 3


def test_a_broken_line_names_its_line_and_all_are_in_the_report(job: Job) -> None:
    rows: list[Any] = [*examples(16), '{"prompt": "a" "completion": "b"}', *examples(283)]
    rows[200:230] = ["{}"] * 30
    job.put("train.jsonl", jsonl(rows))
    outcome, task = job.run()
    failure = outcome.failure
    assert failure is not None
    assert (failure.code, failure.param) == (Reason.INVALID_DATA, "trainingFile")
    assert failure.message.startswith(
        f"trainingFile s3://{job.bucket}/train.jsonl, line 17, column 16: not valid JSON: "
        "expected ',' or the end of the object or array"
    )
    assert "(31 wrong lines of 300; see data-report.jsonl)" in failure.message
    assert failure.lines is not None
    assert len(failure.lines) == 20
    assert failure.lines[1] == 'line 201, column 1: missing key "prompt"; the object is empty'
    assert failure.hint == f"all findings are in {task.run.layout.data_report}"
    report = job.storage.read_bytes(task.run.layout.data_report).decode().splitlines()
    assert [json.loads(line)["line"] for line in report] == [17, *range(201, 231)]


def test_findings_of_both_kinds_are_in_the_order_of_the_file(job: Job) -> None:
    long = {"prompt": "many words " * 30, "completion": "b"}
    job.put("train.jsonl", jsonl([*examples(3), long, "x", long, *examples(9)]))
    failure = job.failure()
    assert failure.lines is not None
    assert [line.partition(":")[0].partition(",")[0] for line in failure.lines] == [
        "line 4",
        "line 5",
        "line 6",
    ]
    assert "tokens (prompt " in failure.lines[0]
    assert "are more than 64, the context length" in failure.lines[0]


def test_both_files_are_checked_at_once(job: Job) -> None:
    job.put("train.jsonl", jsonl(["x", *examples(3)]))
    valid = job.put("valid.jsonl", jsonl([*examples(3), "y"]))
    failure = job.failure(validation_file=valid)
    assert failure.param == "trainingFile"
    assert failure.lines is not None
    assert failure.lines[1].startswith("validationFile, line 4, column 1: not valid JSON")
    job.put("train.jsonl", jsonl(examples(3)))
    assert job.failure(validation_file=valid).param == "validationFile"


def test_shared_examples_are_advice(job: Job) -> None:
    job.put("train.jsonl", jsonl([row | {"id": 1} for row in examples(5)]))
    valid = job.put("valid.jsonl", jsonl(examples(2, 4)))
    advice = job.prepared(validation_file=valid).advice or []
    assert any("1 row of the validation data is also in the training" in text for text in advice)
    assert any('Ignored columns of trainingFile: "id".' in text for text in advice)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty"),
        (b"\n\n\n", "the file is empty"),
        (compress(jsonl(examples(3)))[:-9], "the gzip data is broken or cut off"),
        (b"PAR1" + bytes(100), "the Parquet file cannot be read"),
        (b"\xff\xd8\xff\xe0", "this is a JPEG picture"),
    ],
)
def test_a_file_without_data_is_a_sentence(job: Job, data: bytes, expected: str) -> None:
    job.put("train.jsonl", data)
    failure = job.failure(data_tolerance=1)
    assert failure.code == Reason.INVALID_DATA
    assert expected in failure.message


def test_a_file_over_the_limit_is_refused(job: Job) -> None:
    limits = {"maxFileBytes": 5_000}
    job.put("train.jsonl", jsonl(examples(1_000)))
    assert "more than the 5,000 allowed" in job.failure(limits=limits).message
    job.put("train.jsonl", compress(jsonl(examples(500))))
    assert "more than 5,000 bytes, decompressed" in job.failure(limits=limits).message


@pytest.mark.parametrize("missing", ["training_file", "validation_file"])
def test_a_missing_data_file_names_its_field(job: Job, missing: str) -> None:
    job.put("train.jsonl", jsonl(examples(3)))
    failure = job.failure(**{missing: f"s3://{job.bucket}/nothing.jsonl"})
    assert failure.code == Reason.DATA_NOT_FOUND
    assert failure.param == ("trainingFile" if missing == "training_file" else "validationFile")
    failure = job.failure(**{missing: "s3://no-such-bucket/nothing.jsonl"})
    assert failure.code == Reason.BUCKET_NOT_FOUND


def test_a_run_on_this_machine_gets_the_failure_for_the_shell(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.put("train.jsonl", jsonl(examples(3)))
    elsewhere = {"training_file": "s3://no-such-bucket/nothing.jsonl"}
    pod = job.failure(**elsewhere)
    monkeypatch.setenv(ENV_LOCAL_ROOT, "runs")
    shell = job.failure(**elsewhere)
    assert "Secret" in pod.message
    assert "Secret" not in f"{shell.message} {shell.hint}"
    assert "AWS_ENDPOINT_URL in the environment" in str(shell.hint)
    assert (shell.code, shell.param) == (pod.code, pod.param)


def test_a_missing_output_bucket_names_its_field(job: Job) -> None:
    job.put("train.jsonl", jsonl(examples(3)))
    task = prepare_task(job.bucket)
    outcome, _ = job.run(run=task.run.replace(output="s3://no-such-bucket/out"))
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.param) == (Reason.BUCKET_NOT_FOUND, "output")


def test_a_wrong_address_is_a_wrong_spec(job: Job) -> None:
    failure = job.failure(training_file=f"s3://{job.bucket}/a/../b")
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "trainingFile")


def test_a_missing_or_broken_base_model_is_the_models_fault(job: Job) -> None:
    job.put("train.jsonl", jsonl(examples(3)))
    failure = job.failure(base=base_model(f"s3://{job.bucket}/nothing"))
    assert (failure.code, failure.param) == (Reason.BASE_MODEL_NOT_FOUND, "model")
    assert f"s3://{job.bucket}/nothing" in failure.message
    config = b'{"model_type": "llama", "vocab_size": 10}'
    job.storage.write_bytes(S3Uri(job.bucket, "model/config.json"), config)
    failure = job.failure()
    assert (failure.code, failure.param) == (Reason.BASE_MODEL_INVALID, "model")
    assert "a vocabulary of 10" in failure.message


def test_dropout_of_experts_is_refused_before_the_data_is_read(job: Job) -> None:
    config = {
        "model_type": "mixtral",
        "vocab_size": 400,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_local_experts": 4,
    }
    job.storage.write_bytes(S3Uri(job.bucket, "model/config.json"), json.dumps(config).encode())
    job.put("train.jsonl", b"not JSON")
    failure = job.failure(method=MethodRef(type="lora", dropout=0.1))
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "method.dropout")
    job.put("train.jsonl", jsonl(examples(20)))
    job.prepared(method=MethodRef(type="lora", dropout=0.1, targets=["q_proj"]))


def test_many_batches_give_the_same_result_as_one(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_data.read.reader.BATCH_EXAMPLES", 7)
    job.put("train.jsonl", jsonl([*examples(50), "x", *examples(50, 50)]))
    pieces = job.prepared(data_tolerance=0.5)
    dataset = fetch_dataset(S3Uri.parse(pieces.dataset), job.folder / "fetched", job.storage)
    assert len(dataset.train) == 100
    monkeypatch.undo()
    task = prepare_task(job.bucket)
    elsewhere = task.run.replace(namespace="other")
    again = job.prepared(data_tolerance=0.5, run=elsewhere)
    assert again.dataset != pieces.dataset
    whole = fetch_dataset(S3Uri.parse(again.dataset), job.folder / "whole", job.storage)
    assert [e.sha256 for e in whole.manifest.files] == [e.sha256 for e in dataset.manifest.files]


def test_a_second_finetune_on_the_same_files_starts_at_once(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    job.put("train.jsonl", jsonl(examples(20)))
    first = job.prepared()
    assert REUSED not in capsys.readouterr().out
    run = prepare_task(job.bucket).run.replace(name="another", uid="fedcba98")
    second = job.prepared(run=run, hyperparameters={"nEpochs": 2, "promptLossWeight": 0.5})
    assert REUSED in capsys.readouterr().out
    assert second.dataset == first.dataset
    assert second.steps == first.steps // 2
    assert len(job.datasets()) == 1


def test_chats_become_a_dataset_that_learns_the_assistant_messages(
    job: Job, model_folder: Path
) -> None:
    template = (
        "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    job.storage.write_bytes(S3Uri(job.bucket, "model/chat_template.jinja"), template.encode())
    chat = [
        {"role": "user", "content": "what"},
        {"role": "assistant", "content": "no", "weight": 0, "refusal": "never"},
        {"role": "user", "content": "really"},
        {"role": "assistant", "content": "yes"},
    ]
    job.put("train.jsonl", jsonl([{"messages": chat}] * 3))
    found = job.prepared()
    ignored = 'Ignored columns of trainingFile: "messages[].refusal".'
    assert ignored in (found.advice or [])
    dataset = fetch_dataset(S3Uri.parse(found.dataset), job.folder / "fetched", job.storage)
    tokens, roles = dataset.train.example(0)
    backend = load_tokenizer(model_folder, "tiny")._backend
    learned = [int(t) for t, role in zip(tokens, roles, strict=True) if role == COMPLETION]
    assert backend.decode(learned, skip_special_tokens=False) == "yes</s>"
    whole = backend.decode([int(token) for token in tokens], skip_special_tokens=False)
    assert whole.startswith("<s>user\nwhat</s>\n<s>assistant\nno</s>\n")


def test_chats_need_a_chat_template(job: Job) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    job.put("train.jsonl", jsonl([{"messages": messages}]))
    failure = job.failure()
    assert (failure.code, failure.param) == (Reason.INVALID_DATA, "model")
    assert "has no chat template" in failure.message


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train.csv", b"prompt,completion\nNA, None\n007,x\n"),
        (
            "train.json",
            b'[{"prompt": "NA", "completion": " None"},\n{"prompt":"007","completion":"x"}]',
        ),
        ("train.tsv.gz", compress(b"prompt\tcompletion\nNA\t None\n007\tx\n")),
    ],
)
def test_every_format_makes_the_same_dataset(job: Job, name: str, data: bytes) -> None:
    rows = [{"prompt": "NA", "completion": " None"}, {"prompt": "007", "completion": "x"}]
    job.put("train.jsonl", jsonl(rows))
    expected = job.prepared()
    found = job.prepared(training_file=job.put(name, data))
    one, other = (
        fetch_dataset(S3Uri.parse(each.dataset), job.folder / str(n), job.storage)
        for n, each in enumerate((expected, found))
    )
    assert [e.sha256 for e in one.manifest.files] == [e.sha256 for e in other.manifest.files]


def classes(*labels: str) -> bytes:
    rows = [{"prompt": f"{label} {n}", "completion": label} for n in range(5) for label in labels]
    return jsonl(rows)


@pytest.mark.parametrize(
    ("asked", "labels", "param", "words"),
    [
        ({"positiveClass": " yes"}, (" yes", " no"), None, ""),
        ({"nClasses": 3}, ("a", "b", "c"), None, ""),
        ({"positiveClass": "yes"}, (" yes", " no"), "PositiveClass", '" yes", " no"'),
        ({"positiveClass": "a"}, ("a", "b", "c"), "PositiveClass", "the files have 3"),
        ({"nClasses": 4}, ("a", "b", "c"), "NClasses", "the files have 3 classes"),
    ],
)
def test_classes_are_checked_before_any_gpu(
    job: Job, asked: dict[str, Any], labels: tuple[str, ...], param: str | None, words: str
) -> None:
    job.put("train.jsonl", classes(*labels))
    valid = job.put("valid.jsonl", classes(*labels))
    if param is None:
        job.prepared(validation_file=valid, classification=asked)
        return
    failure = job.failure(validation_file=valid, classification=asked)
    assert failure.param == f"hyperparameters.classification{param}"
    assert words in failure.message


def test_a_class_that_only_the_validation_file_has_is_named_with_its_line(job: Job) -> None:
    job.put("train.jsonl", classes(" low", " mid", " high"))
    valid = job.put("valid.jsonl", classes(" low", " terrible"))
    failure = job.failure(validation_file=valid, classification={"nClasses": 3})
    assert failure.message.endswith(
        'the files have 4 classes: " low", " terrible", " mid", " high"; " terrible" (line 2) '
        "is only in validationFile"
    )
    assert failure.hint == "add training examples of it, or remove its rows from validationFile"
    two = job.put("two.jsonl", classes(" low", " terrible", " bad"))
    failure = job.failure(validation_file=two, classification={"positiveClass": " low"})
    assert '" terrible" (line 2), " bad" (line 3) are only in validationFile' in failure.message
    said = job.prepared(validation_file=valid, classification={"nClasses": 4}).advice or []
    assert any(
        text.startswith("1 class is only in the validation data, and the model never learns")
        for text in said
    )


def labeled_chats(*labels: str, answers: int = 1) -> bytes:
    turns = [
        [{"role": "user", "content": f"{label} {n}"}, {"role": "assistant", "content": label}]
        for n in range(5)
        for label in labels
    ]
    return jsonl([{"messages": turn * answers} for turn in turns])


def test_the_last_message_of_a_chat_can_be_its_class(job: Job) -> None:
    template = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    job.storage.write_bytes(S3Uri(job.bucket, "model/chat_template.jinja"), template.encode())
    job.put("train.jsonl", labeled_chats("yes", "no"))
    valid = job.put("valid.jsonl", labeled_chats("yes", "no"))
    failure = job.failure(validation_file=valid, classification={"nClasses": 3})
    assert "the files have 2 classes" in failure.message
    job.put("train.jsonl", labeled_chats("yes", "no", answers=2))
    failure = job.failure(validation_file=valid, classification={"nClasses": 2})
    assert failure.param == "hyperparameters.computeClassificationMetrics"
    assert "the model learns more than the last message" in failure.message
    job.put("train.jsonl", labeled_chats("yes", "no"))
    job.prepared(validation_file=valid, classification={"positiveClass": "yes"})


def test_a_model_that_cannot_fit_is_reported_with_settings_that_would(job: Job) -> None:
    job.put("train.jsonl", jsonl(examples(20)))
    config = {
        "model_type": "llama",
        "vocab_size": 400,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 14336,
    }
    job.storage.write_bytes(S3Uri(job.bucket, "model/config.json"), json.dumps(config).encode())
    workers = {"nodes": 1, "processesPerNode": 2, "accelerator": "nvidia", "gpuMemoryGib": 80}
    found = job.prepared(workers=workers)
    assert found.memory_per_rank_gib is not None
    assert 8 < found.memory_per_rank_gib < 72
    run = prepare_task(job.bucket).run.replace(namespace="small")
    small = workers | {"gpuMemoryGib": 16, "offload": "none"}
    outcome, _ = job.run(workers=small, run=run)
    failure = outcome.failure
    assert failure is not None
    assert (failure.code, failure.param) == (Reason.INVALID_SPEC, "deepspeed")
    assert "does not fit the GPUs: about" in failure.message
    assert "zeroStage 3 and offload optimizer needs" in (failure.hint or "")
    lean = prepare_task(job.bucket).run.replace(namespace="lean")
    outcome, _ = job.run(workers=workers | {"memoryGib": 40}, run=lean)
    assert outcome.failure is not None
    assert outcome.failure.param == "resources.memory"
    assert found.memory_per_pod_gib is not None and found.storage_per_pod_gib is not None
    between = workers | {"memoryGib": found.memory_per_pod_gib - 1, "ephemeralStorageGib": 1}
    said = job.prepared(workers=between).advice or []
    assert said[0].startswith("resources.memory is ")
    assert said[1].startswith("resources.ephemeralStorage is 1.0 GiB")


def test_a_workbook_in_s3_is_downloaded_once_and_its_digest_is_known(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openpyxl import Workbook

    book, file = Workbook(), io.BytesIO()
    assert book.active is not None
    for row in (("prompt", "completion"), ("a", "b"), ("c", "d")):
        book.active.append(row)
    book.save(file)
    address = job.put("train.xlsx", file.getvalue())
    reads: list[int] = []
    whole = ObjectStream.read

    def count(stream: ObjectStream, size: int = -1) -> bytes:
        block = whole(stream, size)
        if address.endswith(stream.entry.key):
            reads.append(len(block))
        return block

    monkeypatch.setattr(ObjectStream, "read", count)
    found = job.prepared(training_file=address)
    assert found.training_examples == 2
    assert sum(reads) < 1.5 * len(file.getvalue())
    dataset = fetch_dataset(S3Uri.parse(found.dataset), job.folder / "fetched", job.storage)
    known = dataset.manifest.source.inputs["train"].sha256
    assert known == hashlib.sha256(file.getvalue()).hexdigest()
