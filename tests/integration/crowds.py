"""Many FineTunes at once. Each step of all of them takes one kubectl."""

from collections.abc import Callable
from typing import Any

from finetune_api import names
from finetune_api.outcome import Outcome
from tests.integration.conftest import READY, Kubelet, ended
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import prepared, trained

TWO_NODES = {"model": "ada", "resources": {"nodes": 2, "gpusPerNode": 0}}
STEP_SECONDS = 60


def published_by(name: str) -> Outcome:
    """The result of a training, with a model name that is unique in the namespace."""
    found = trained().trained
    assert found is not None
    return Outcome(trained=found.replace(fine_tuned_model=f"ada:ft-team:{name}"))


class Crowd:
    """FineTunes with these names on two nodes each. The test triggers their steps."""

    def __init__(self, team: Kubectl, kubelet: Kubelet, *finetunes: str) -> None:
        self.team = team
        self.kubelet = kubelet
        self.finetunes = finetunes

    def create(self, **spec: Any) -> None:
        self.team.apply(*(finetune(name, **{**TWO_NODES, **spec}) for name in self.finetunes))

    def jobs(self, ending: str) -> dict[str, Any]:
        """Wait for the Job with this ending of each FineTune."""
        found: dict[str, Any] = {}

        def are_there() -> bool:
            for job in self.team.list("jobs"):
                owner = job["metadata"]["labels"].get(names.LABEL_FINETUNE)
                if owner in self.finetunes and job["metadata"]["name"].endswith(ending):
                    found[owner] = job
            return len(found) == len(self.finetunes)

        until(are_there, STEP_SECONDS, lambda: f"no {ending}: {set(self.finetunes) - set(found)}")
        return found

    def wait(self, state: str, explain: Callable[[], str] = lambda: "") -> dict[str, Any]:
        """Wait until all are in this state, and return their statuses."""
        found: dict[str, Any] = {}

        def are_there() -> bool:
            for item in self.team.list("finetunes"):
                found[item["metadata"]["name"]] = item.get("status", {})
            return not missing()

        def missing() -> list[str]:
            return [name for name in self.finetunes if found[name].get("state") != state]

        until(are_there, STEP_SECONDS, lambda: f"not {state}: {missing()} {explain()}")
        return {name: found[name] for name in self.finetunes}

    def prepare(self) -> None:
        pods = self.kubelet.start_pods(*self.jobs("-prepare").values())
        statuses = ended(0, prepared().to_termination_message())
        self.kubelet.set_status(dict.fromkeys(pods, statuses))

    def train(self, ending: str = "-a1") -> None:
        """Make every pod of this attempt ready."""
        pods = self.kubelet.start_pods(*self.jobs(ending).values())
        self.kubelet.set_status(dict.fromkeys(pods, READY))

    def publish(self, ending: str = "-a1") -> None:
        """End every pod successfully, rank 0 with a model."""
        statuses = {}
        for name, job in self.jobs(ending).items():
            pod = job["metadata"]["name"]
            statuses[f"{pod}-0"] = ended(0, published_by(name).to_termination_message())
            statuses[f"{pod}-1"] = ended(0)
        self.kubelet.set_status(statuses)

    def live(self, explain: Callable[[], str] = lambda: "") -> dict[str, Any]:
        """Run whole lives, from the manifest to the model, and return the statuses."""
        self.create()
        self.prepare()
        self.train()
        self.wait("running", explain)
        self.publish()
        return self.wait("succeeded", explain)
