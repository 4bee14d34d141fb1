"""Runs the tutorials with real pods, in order, as a reader does.

The tests create the results of `make demo` in their own namespace: the release and the demo's
`ada`, a two-layer model with random weights.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from examples.demo import base_model, dataset, tokenizer
from examples.demo.demo import PRETRAINING_RATE
from tests.docs.blocks import ROOT, blocks_for, pages_with
from tests.docs.sessions import environment, run_page
from tests.e2e.conftest import CHART, RUN, Cluster, Team, cluster
from tests.support.cases import LONG

__all__ = ["cluster"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), LONG]

TUTORIALS = [
    "tutorials/first-model.md",
    "tutorials/continue.md",
    "tutorials/why-it-failed.md",
]
PROXIES = ("NO_PROXY", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
AFTER_THEM = sorted(set(pages_with("cluster")) - set(TUTORIALS))


@pytest.fixture(scope="module")
def reader(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Team, Path]]:
    """Create a namespace with the operator and `ada`, and a copy of the examples."""
    folder = tmp_path_factory.mktemp("reader")
    team = Team(cluster, f"{RUN}-docs", folder)
    team.create()
    model = folder / "ada"
    tokenizer.write_tokenizer(dataset.seen_texts(dataset.build_dataset()), model)
    base_model.write_base_model(model)
    for path in model.iterdir():
        cluster.s3.upload_file(str(path), cluster.bucket, f"{team.prefix}/ada/{path.name}")
    entry = {
        "name": "ada",
        "uri": f"s3://{cluster.bucket}/{team.prefix}/ada",
        "pretrainingLearningRate": PRETRAINING_RATE,
        "contextLength": tokenizer.CONTEXT,
    }
    values = {
        "images": cluster.images,
        "output": f"s3://{cluster.bucket}/{team.prefix}/out",
        "models": [entry],
        "runtimes": [{"name": "cpu", "accelerator": "cpu", "env": {"OMP_NUM_THREADS": "2"}}],
    }
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    cluster.helm(
        "upgrade", "--install", "finetune-operator", str(CHART), "-n", team.name,
        "-f", str(folder / "values.yaml"), "--wait", "--timeout", "120s", "--take-ownership",
    )  # fmt: skip
    shutil.copytree(ROOT / "examples", folder / "repository/examples")
    config = yaml.safe_load(Path(cluster.place.kubeconfig).read_text())
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    yield team, folder
    team.remove()


@pytest.fixture(scope="module")
def env(reader: tuple[Team, Path], cluster: Cluster) -> dict[str, str]:
    """Set the variables of `eval "$(python3 -m devcluster env)"`, with a separate kubeconfig."""
    _, folder = reader
    proxies = {name: cluster.place.env[name] for name in PROXIES if name in cluster.place.env}
    tools = Path(cluster.place.programs)
    return environment(
        folder, tools, **proxies, **cluster.place.s3, KUBECONFIG=str(folder / "kubeconfig")
    )


def run(page: str, reader: tuple[Team, Path], env: dict[str, str], cluster: Cluster) -> None:
    team, folder = reader
    changes = {
        r"(?<=--namespace )finetune-demo\b": team.name,
        r"s3://finetune/": f"s3://{cluster.bucket}/{team.prefix}/",
    }
    own = Path(env["HOME"]) / "tutorial"  # created by the first tutorial
    place = own if own.exists() else folder / "repository"
    run_page(blocks_for(page, "cluster"), place, env, changes, seconds=800)


@pytest.mark.parametrize("page", [*TUTORIALS, *AFTER_THEM])
def test_a_tutorial_s_commands_do_what_it_says(
    page: str, reader: tuple[Team, Path], env: dict[str, str], cluster: Cluster
) -> None:
    run(page, reader, env, cluster)


def test_the_tutorial_s_model_sorts_tickets(
    reader: tuple[Team, Path], env: dict[str, str], cluster: Cluster
) -> None:
    """On tickets outside the training data, the model is far better than chance."""
    team, _ = reader
    status = team.kubectl.get("finetune", "tickets")["status"]
    table = team.read(next(uri for uri in status["resultFiles"] if uri.endswith("results.csv")))
    head, *rows = [line.split(",") for line in table.splitlines()]
    column = head.index("classification/accuracy")
    measured = [float(row[column]) for row in rows if row[column]]
    assert measured[-1] > 0.8
    assert re.fullmatch(r"ada:ft-.*:tickets-[\d-]{19}", status["fineTunedModel"])
