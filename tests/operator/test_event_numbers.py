"""The Events of a FineTune are numbered without gaps, and no number has two Events."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_operator.core.events.legacy import with_event_fields
from finetune_operator.core.events.numbers import EVENTS_KEPT, with_event, with_numbers
from finetune_operator.core.plan import Plan
from finetune_operator.core.refusals import Refusal
from finetune_operator.core.refused_plan import refused_plan
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.messages import Event
from tests.support.objects import NOW, World, a_finetune


def an_entry(number: int, seq: int | None = None) -> EventEntry:
    return EventEntry(at="2026-11-21T12:00:00Z", reason="Said", message=f"event {number}", seq=seq)


def an_event(number: int) -> Event:
    return Event("Said", f"event {number}", key=str(number))


def numbers(events: list[EventEntry]) -> list[int | None]:
    return [entry.seq for entry in events]


def test_the_events_of_a_life_are_numbered_from_one() -> None:
    world = World(a_finetune()).until_running()
    events = world.status.events
    assert len(events) >= 3
    assert numbers(events) == list(range(1, len(events) + 1))


def test_an_event_that_is_recorded_already_gets_no_second_number() -> None:
    builder = StatusBuilder(a_finetune(), NOW)
    for _ in range(3):
        builder.record_event(an_event(1))
    builder.record_event(an_event(2))
    assert numbers(builder.finish().events) == [1, 2]


@given(st.integers(1, 3 * EVENTS_KEPT))
def test_the_numbers_grow_although_the_list_keeps_only_the_newest(count: int) -> None:
    builder = StatusBuilder(a_finetune(), NOW)
    for number in range(1, count + 1):
        builder.record_event(an_event(number))
    events = builder.finish().events
    assert len(events) == min(count, EVENTS_KEPT)
    assert [entry.message for entry in events] == [f"event {seq}" for seq in numbers(events)]
    assert events[-1].seq == count


@given(st.integers(0, EVENTS_KEPT), st.integers(0, 2 * EVENTS_KEPT))
def test_the_events_of_an_older_version_are_numbered_by_their_position(
    older: int, added: int
) -> None:
    """Each writing of the status has them, and none changes a number."""
    events = [an_entry(number) for number in range(1, older + 1)]
    for number in range(older + 1, older + added + 1):
        before = {entry.message: entry.seq for entry in with_numbers(events)}
        events = with_event(events, an_entry(number))
        assert all(before.get(entry.message, entry.seq) == entry.seq for entry in events)
    found = with_numbers(events)
    assert [f"event {seq}" for seq in numbers(found)] == [entry.message for entry in found]


@given(st.lists(st.none() | st.integers(1, 2**40), max_size=EVENTS_KEPT))
def test_a_number_never_changes_and_a_new_one_is_the_largest(known: list[int | None]) -> None:
    found = with_numbers(an_entry(index, seq) for index, seq in enumerate(known))
    assert all(seq in {None, new} for seq, new in zip(known, numbers(found), strict=True))
    newest = with_event(found, an_entry(len(known)))[-1].seq
    assert newest is not None
    assert all(newest > (seq or 0) for seq in numbers(found))


def test_numbers_alone_are_no_reason_for_a_write() -> None:
    """An upgrade would otherwise write the status of each FineTune that has ever ended."""
    world = World(a_finetune()).until_running()
    events = [entry.replace(seq=None) for entry in world.status.events]
    older = world.finetune.replace(status=world.status.replace(events=events))
    world.finetune = with_event_fields(older)
    writes = world.status_writes
    world.settle()
    assert world.status_writes == writes
    assert numbers(world.status.events) == list(range(1, len(events) + 1))


def test_the_identity_of_an_event_has_no_number() -> None:
    """A CRD of an older version drops the numbers."""
    world = World(a_finetune()).until_running()
    before = len(world.status.events)
    events = [entry.replace(seq=None) for entry in world.status.events]
    world.finetune = world.finetune.replace(status=world.status.replace(events=events))
    world.settle()
    assert len(world.status.events) == before


def refused(status: dict[str, Any], *recorded: Event) -> FineTuneStatus:
    """The status after a plan that records these Events and whose Job is refused."""
    world = World(a_finetune(status))
    observed = world.observe()
    builder = StatusBuilder(observed.finetune, NOW)
    for event in recorded:
        builder.record_event(event)
    refusal = Refusal("create", "Job", "ft-tone-11111111-a1", 403, "no", (), None)
    return refused_plan(observed, Plan(builder.finish()), refusal, NOW).status


def test_the_events_that_a_refusal_leaves_out_leave_no_gap() -> None:
    advice = Event("Advice", "22 examples are duplicates of others", key="duplicates")
    status = refused({"events": [an_entry(1, 1).to_dict()]}, an_event(2), advice)
    assert [(entry.reason, entry.seq) for entry in status.events] == [("Said", 1), ("Advice", 2)]


def test_a_refusal_keeps_no_more_events_than_the_status_can_have() -> None:
    full = [an_entry(number, number).to_dict() for number in range(1, EVENTS_KEPT + 1)]
    advice = Event("Advice", "22 examples are duplicates of others", key="duplicates")
    status = refused({"events": full}, advice)
    assert len(status.events) == EVENTS_KEPT
    assert (status.events[0].seq, status.events[-1].seq) == (2, EVENTS_KEPT + 1)
