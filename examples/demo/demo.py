"""The parts of the demo in order; each one does what a user does by hand."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from examples.demo import (
    base_model,
    cluster,
    dataset,
    openai_client,
    report,
    samples,
    tokenizer,
)
from examples.demo.bucket import Bucket
from examples.demo.cluster import NAMESPACE, ROOT, Cluster
from examples.demo.follow import follow
from examples.demo.kind import Kind
from examples.demo.terminal import DemoError, Running, Terminal
from finetune_api.finetune_status import FineTuneStatus

HERE = Path(__file__).parent
WORK = ROOT / ".demo"
PARTS = 8
PROVIDERS = ("devcluster", "kind")
OPENAI_ROWS = 400  # of the training data, so that this part takes a minute
PRETRAINING_RATE = 0.001  # of the base FineTune, and the base of later multipliers


@dataclass(frozen=True)
class Finished:
    """A FineTune that succeeded."""

    name: str
    status: FineTuneStatus
    results: report.Results


class Provider(Protocol):
    """Where the cluster and the images of the demo come from."""

    def build_command(self) -> list[str]:
        """The command that builds the images."""
        ...

    def start(self, terminal: Terminal) -> Cluster:
        """Start the cluster, or find the running one."""
        ...

    def deliver(self, terminal: Terminal, place: Cluster) -> dict[str, str]:
        """Bring the images to the cluster; returns their references for the chart."""
        ...


class Devcluster:
    """The development cluster, or the one that KUBECONFIG names."""

    def build_command(self) -> list[str]:
        return [sys.executable, "-m", "images", "build"]

    def start(self, terminal: Terminal) -> Cluster:
        command = [sys.executable, "-m", "devcluster", "up"]
        terminal.stream("Starting the cluster", command, env=os.environ, cwd=ROOT)
        return Cluster.find(os.environ)

    def deliver(self, terminal: Terminal, place: Cluster) -> dict[str, str]:
        """Push the images that the registry lacks."""
        out = WORK / "images.json"
        command: list[str | Path] = [*self.build_command(), "--push", place.registry, "--out", out]
        terminal.stream("Pushing the images", command, env=place.env, cwd=ROOT)
        found: dict[str, str] = json.loads(out.read_text())
        return found


def choose(name: str) -> Provider:
    """The provider with a name of `PROVIDERS`. Raises DemoError if its programs are missing."""
    WORK.mkdir(exist_ok=True)
    return Kind(WORK, os.environ) if name == "kind" else Devcluster()


def run_demo(terminal: Terminal, provider: Provider) -> None:
    """Run all parts. Raises DemoError if a part fails or a result is below the expectation."""
    WORK.mkdir(exist_ok=True)
    # both download and compile for minutes the first time, so they run in parallel
    build = provider.build_command()
    with Running("Building the images", build, env=os.environ, cwd=ROOT) as building:
        with terminal.part(1, PARTS, "Start a Kubernetes cluster on this machine"):
            place = provider.start(terminal)
        with terminal.part(2, PARTS, "Build the images: operator, gateway, prepare, trainer"):
            terminal.watch(building)
            images = provider.deliver(terminal, place)
    with terminal.part(3, PARTS, "Upload the data and an untrained model to S3"):
        bucket = Bucket(place.bucket, place.s3_here)
        data = upload(terminal, place, bucket)
    with terminal.part(4, PARTS, "Install the operator and the gateway with helm"):
        accounts = openai_client.create_accounts(place)
        install(terminal, place, images)
    with terminal.part(5, PARTS, "FineTune base: train on documentation"):
        base = fine_tune(terminal, place, bucket, "base.yaml")
    with terminal.part(6, PARTS, "FineTune classify: continue from base"):
        model = base.status.fine_tuned_model
        tuned = fine_tune(terminal, place, bucket, "classify.yaml", model)
    with terminal.part(7, PARTS, "Use the published model"):
        answers = use(terminal, bucket, tuned, data)
    with terminal.part(8, PARTS, "OpenAI's own commands: train, complete, and delete"):
        use_openai(terminal, place, accounts, data)
    conclude(terminal, place, (base, tuned), measure(base, tuned, data), answers)


def upload(terminal: Terminal, place: Cluster, bucket: Bucket) -> dataset.Dataset:
    """Create the namespace and the Secret, empty `demo/` in the bucket, and upload the files."""
    terminal.say("    Reading the docstrings of the standard library.")
    data = dataset.build_dataset()
    terminal.say(
        f"    {len(data.base):,} texts without a prompt. {len(data.training):,} functions to train "
        f"on and {len(data.validation)}"
    )
    terminal.say(
        f"    to validate on, from {len(dataset.MODULES)} modules. No prompt names a module."
    )
    model = WORK / "ada-init"
    tokenizer.write_tokenizer(dataset.seen_texts(data), model)
    parameters = base_model.write_base_model(model)
    terminal.say(f"    ada: {parameters / 1e6:.1f} million random weights and a tokenizer")
    cluster_objects = cluster.namespace_objects(place.s3)
    place.apply(cluster_objects[0])
    place.apply(*cluster_objects[1:])
    if place.crd_owner() is not None:
        place.run("delete", "finetunes,models.finetune.dev", "--all", "--wait", "--timeout=2m")
    if removed := bucket.empty():
        terminal.say(f"    Removed {removed} files of an earlier demo.")
    for name, rows in (
        ("base.jsonl", data.base),
        ("train.jsonl", data.training),
        ("valid.jsonl", data.validation),
    ):
        address = bucket.put(name, dataset.jsonl(rows).encode())
        terminal.say(f"    {address}")
    for path in sorted(model.iterdir()):
        bucket.put(f"ada-init/{path.name}", path.read_bytes())
    terminal.say(f"    s3://{bucket.name}/demo/ada-init/")
    return data


def install(terminal: Terminal, place: Cluster, images: dict[str, str]) -> None:
    """Run helm upgrade --install and wait until the Deployment is ready."""
    values = cluster.chart_values(
        images,
        place.bucket,
        rate=PRETRAINING_RATE,
        context=tokenizer.CONTEXT,
        accounts=[*openai_client.ROLES],
    )
    path = WORK / "values.json"
    path.write_text(json.dumps(values, indent=2) + "\n")
    command = place.helm_upgrade(path)
    terminal.say(f"    {' '.join(command[:4])} ... --values={path.relative_to(ROOT)}")
    terminal.stream("helm", [*command, "--hide-notes"], env=place.env, cwd=ROOT)


def read_manifest(path: Path, bucket: str, model: str | None = None) -> dict[str, Any]:
    """Read a FineTune and set its bucket, namespace, and base model."""
    text = path.read_text(encoding="utf-8").replace("s3://finetune/", f"s3://{bucket}/")
    manifest: dict[str, Any] = yaml.safe_load(text)
    manifest["metadata"]["namespace"] = NAMESPACE
    if model is not None:
        manifest["spec"]["model"] = model
    return manifest


def fine_tune(
    terminal: Terminal, place: Cluster, bucket: Bucket, file: str, model: str | None = None
) -> Finished:
    """Apply a FineTune, follow it to its end, and read its results.csv."""
    manifest = read_manifest(HERE / file, place.bucket, model)
    name = manifest["metadata"]["name"]
    terminal.say(f"    kubectl apply -f examples/demo/{file}")
    if model is not None:
        terminal.say(f"    model: {model}")
    place.apply(manifest)
    status = follow(place, name, terminal)
    table = next((uri for uri in status.result_files or [] if uri.endswith("results.csv")), None)
    if not status.fine_tuned_model or not status.model_uri or table is None:
        raise DemoError(f"FineTune {name} succeeded, but its status lacks a model or results.csv.")
    return Finished(name, status, report.Results.parse(bucket.read(table).decode()))


def use(
    terminal: Terminal, bucket: Bucket, tuned: Finished, data: dataset.Dataset
) -> samples.Answers:
    """Download the model and complete every validation prompt."""
    assert tuned.status.model_uri is not None
    folder = WORK / "model"
    for path in folder.glob("*"):
        path.unlink()
    size = bucket.download(tuned.status.model_uri, folder)
    terminal.say(f"    Downloaded {size / 1e6:.1f} MB from {tuned.status.model_uri}")
    return samples.ask(folder, data.validation)


def use_openai(
    terminal: Terminal,
    place: Cluster,
    accounts: dict[str, openai_client.Account],
    data: dataset.Dataset,
) -> None:
    """Do the same through the gateway, with the commands of OpenAI's client."""
    folder = WORK / "openai"
    folder.mkdir(exist_ok=True)
    rows = data.training[:OPENAI_ROWS]
    (folder / "train.jsonl").write_text(dataset.jsonl(rows), encoding="utf-8")
    with openai_client.forwarded(place) as url:
        prompt = min((row.prompt for row in data.validation), key=len)
        openai_client.use_client(terminal, folder, url, accounts, prompt)


def measure(base: Finished, tuned: Finished, data: dataset.Dataset) -> report.Outcome:
    """The results that the demo checks, as the trainer measured them."""
    accuracies = tuned.results.measured("validation_sequence_accuracy")
    return report.Outcome(
        base_loss=base.results.first_and_last("training_loss"),
        loss=tuned.results.first_and_last("training_loss"),
        accuracy=accuracies[-1] if accuracies else 0.0,
        majority_share=data.majority_share,
        rows=len(data.validation),
    )


def conclude(
    terminal: Terminal,
    place: Cluster,
    runs: tuple[Finished, Finished],
    outcome: report.Outcome,
    answers: samples.Answers,
) -> None:
    """Print the report. Raises DemoError if a result is below the expectation."""
    blocks = {
        f"FineTune {run.name}": [
            f"    {run.status.state}: {run.status.fine_tuned_model}",
            *report.events_table(run.status.events),
            *report.loss_lines(run.results),
        ]
        for run in runs
    }
    blocks |= {
        "Accuracy": report.accuracy_lines(outcome, answers),
        "Three completions of the published model": report.sample_lines(answers),
        "Time": report.time_lines(terminal.parts),
        "Next steps": report.next_lines(place.shell, NAMESPACE, place.again, place.stop),
    }
    for title, lines in blocks.items():
        terminal.say()
        terminal.say(f"=== {title}")
        for line in lines:
            terminal.say(line)
    if failed := report.failed_checks(outcome):
        raise DemoError(" ".join(failed))
