"""The typed fields of a runtime are those of Kubernetes' own OpenAPI file."""

import json
from typing import Any

import pytest

from finetune_api.wire import Wire
from finetune_operator import placement
from finetune_operator.pod_fields import (
    SECURITY_FIELDS,
    VOLUME_SOURCES,
    ResourceClaim,
    VolumeMount,
)
from tests.chart.schemas import swagger_file

pytestmark = pytest.mark.integration  # the file comes with what devcluster builds

CORE = "io.k8s.api.core.v1"
MODELS: dict[str, type[Wire]] = {
    f"{CORE}.Affinity": placement.Affinity,
    f"{CORE}.NodeAffinity": placement.NodeAffinity,
    f"{CORE}.NodeSelector": placement.NodeSelector,
    f"{CORE}.NodeSelectorTerm": placement.NodeSelectorTerm,
    f"{CORE}.NodeSelectorRequirement": placement.NodeRequirement,
    f"{CORE}.PreferredSchedulingTerm": placement.PreferredSchedulingTerm,
    f"{CORE}.PodAffinity": placement.PodAffinity,
    f"{CORE}.PodAntiAffinity": placement.PodAffinity,
    f"{CORE}.PodAffinityTerm": placement.PodAffinityTerm,
    f"{CORE}.WeightedPodAffinityTerm": placement.WeightedPodAffinityTerm,
    f"{CORE}.TopologySpreadConstraint": placement.TopologySpreadConstraint,
    f"{CORE}.VolumeMount": VolumeMount,
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector": placement.LabelSelector,
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement": placement.LabelRequirement,
}


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    path = swagger_file()
    if path is None:
        pytest.skip("Kubernetes' OpenAPI file is not in Go's module cache")
    found: dict[str, Any] = json.loads(path.read_text())["definitions"]
    return found


def keys(model: type[Wire]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_the_typed_fields_are_those_of_kubernetes(definitions: dict[str, Any]) -> None:
    for name, model in MODELS.items():
        assert keys(model) == definitions[name]["properties"].keys(), name
    claim = definitions[f"{CORE}.PodResourceClaim"]["properties"].keys()
    assert keys(ResourceClaim) - {"request"} == claim
    assert definitions[f"{CORE}.ResourceClaim"]["properties"].keys() == {"name", "request"}


def test_the_names_of_sources_and_of_the_security_context_are_complete(
    definitions: dict[str, Any],
) -> None:
    assert definitions[f"{CORE}.Volume"]["properties"].keys() - {"name"} == VOLUME_SOURCES
    assert definitions[f"{CORE}.SecurityContext"]["properties"].keys() == SECURITY_FIELDS
