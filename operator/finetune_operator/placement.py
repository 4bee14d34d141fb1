"""Placement of the training pods: affinity and topology spread, with the rules of Kubernetes."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune_api.wire import Wire
from finetune_operator.keys import find_broken_key, find_broken_value

Key = Annotated[str, Field(min_length=1, max_length=317)]
Keys = Annotated[list[Key], Field(min_length=1)]
Weight = Annotated[int, Field(ge=1, le=100)]


class LabelRequirement(Wire):
    """A condition on a label."""

    key: Key
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_values(self.key, self.operator, self.values)
        return self


class LabelSelector(Wire):
    """The objects whose labels meet all conditions."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[LabelRequirement] | None = None

    @model_validator(mode="after")
    def _has_labels(self) -> Self:
        for key, value in (self.match_labels or {}).items():
            if broken := find_broken_key(key) or find_broken_value(value):
                raise ValueError(broken)
        return self


class NodeRequirement(Wire):
    """A condition on a label or a field of a node."""

    key: Key
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: list[str] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_values(self.key, self.operator, self.values)
        return self


class NodeSelectorTerm(Wire):
    """The nodes that meet all conditions."""

    match_expressions: list[NodeRequirement] | None = None
    match_fields: list[NodeRequirement] | None = None


class NodeSelector(Wire):
    """The nodes that meet one of the terms."""

    node_selector_terms: list[NodeSelectorTerm] = Field(min_length=1)


class PreferredSchedulingTerm(Wire):
    """The nodes that the scheduler prefers."""

    weight: Weight
    preference: NodeSelectorTerm


class NodeAffinity(Wire):
    """The nodes for the pods."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] | None = (
        None
    )


class _Selecting(Wire):
    """A rule about pods with certain labels."""

    label_selector: LabelSelector | None = None
    # Keys of labels whose values are those of the new pod: `finetune.dev/finetune-uid` stands for
    # the pods of the same FineTune.
    match_label_keys: Keys | None = None

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if self.match_label_keys and self.label_selector is None:
            raise ValueError("matchLabelKeys needs a labelSelector, which may be empty")
        return self


class PodAffinityTerm(_Selecting):
    """Pods near which, or away from which, a pod runs."""

    topology_key: Key
    namespaces: list[str] | None = None
    namespace_selector: LabelSelector | None = None
    mismatch_label_keys: Keys | None = None


class WeightedPodAffinityTerm(Wire):
    """The same as a preference."""

    weight: Weight
    pod_affinity_term: PodAffinityTerm


class PodAffinity(Wire):
    """The pods near which, or away from which, a pod runs."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] | None = None
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] | None = (
        None
    )


class Affinity(Wire):
    """The affinity of a pod, in the format of Kubernetes."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(_Selecting):
    """How evenly pods are distributed over zones, racks, or nodes."""

    max_skew: int = Field(ge=1)
    topology_key: Key
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    min_domains: int | None = Field(None, ge=1)
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    node_taints_policy: Literal["Honor", "Ignore"] | None = None

    @model_validator(mode="after")
    def _counts_domains(self) -> Self:
        if self.min_domains is not None and self.when_unsatisfiable != "DoNotSchedule":
            raise ValueError("minDomains needs whenUnsatisfiable DoNotSchedule")
        return self


def _check_values(key: str, operator: str, values: list[str] | None) -> None:
    if broken := find_broken_key(key):
        raise ValueError(broken)
    given = values or []
    if operator in {"In", "NotIn"} and not given:
        raise ValueError(f"{key}: operator {operator} needs values")
    if operator in {"Exists", "DoesNotExist"} and given:
        raise ValueError(f"{key}: operator {operator} takes no values")
    if operator in {"Gt", "Lt"} and (len(given) != 1 or not given[0].lstrip("-").isdecimal()):
        raise ValueError(f"{key}: operator {operator} needs one integer as its value")
