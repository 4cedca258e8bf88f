"""Who runs when: cancelling, a full queue, turns between groups, priorities and closing, with an engine that steps when told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retnet_core import Engine, EngineClosed, Handle, Overloaded, Request
from retnet_core.scheduler import Scheduler, Turns
from tests.retnet_core.tiny import Braked, tiny_model

SECONDS = 60


class Stepped:
    """An engine whose model makes one pass whenever `step` is called."""

    def __init__(self, **options: int) -> None:
        self.model: Braked = tiny_model(kind=Braked)  # type: ignore[assignment]
        self.engine = Engine(self.model, **{"threads": 1, **options})

    def step(self, passes: int = 1) -> None:
        """Returns when the engine asks for the pass after these: their tokens are out."""
        for _ in range(passes):
            self.model.wait_until_asked()
            self.model.allow(1)

    def run_freely(self) -> None:
        self.model.allow(100_000)


@pytest.fixture
def stepped() -> Iterator[type[Stepped]]:
    made: list[Stepped] = []

    class Recorded(Stepped):
        def __init__(self, **options: int) -> None:
            super().__init__(**options)
            made.append(self)

    yield Recorded
    for one in made:
        one.run_freely()
        one.engine.close()


def is_done(handle: Handle) -> bool:
    try:
        handle.wait(0)
    except TimeoutError:
        return False
    return True


def write(count: int, group: str = "", priority: int = 0) -> Request:
    return Request([1], max_new_tokens=count, stop_ids=(), group=group, priority=priority)


def test_a_cancelled_answer_ends_within_a_step_and_keeps_what_was_emitted(stepped: type[Stepped]) -> None:
    one = stepped()
    one.engine.start()
    handle = one.engine.submit(write(1000))
    one.step(4)
    one.model.wait_until_asked()  # four tokens are out, the fifth pass stands ready
    handle.cancel()
    one.model.allow(1)  # the pass that was under way
    one.run_freely()  # and the one that consumes the last id
    result = handle.wait(SECONDS)
    assert result.finish == "cancelled"
    assert len(result.ids) == 5
    expected = tiny_model().read([1, *result.ids])[1]
    assert result.state is not None and result.state.tokens == expected.tokens == 6
    assert (result.state.retention - expected.retention).abs().max() < 1e-4
    assert one.model.passes <= 7


@pytest.mark.parametrize("read", [0, 1, 3])
def test_a_reader_that_is_cancelled_reads_no_further_chunk(stepped: type[Stepped], read: int) -> None:
    """Cancelling takes effect before the next step: only the pass that stands ready is still made."""
    one = stepped(prefill_chunk=8)
    one.engine.start()
    long = one.engine.submit(Request(list(range(200)), max_new_tokens=5, stop_ids=()))
    one.step(read)
    one.model.wait_until_asked()
    long.cancel()
    other = one.engine.submit(write(2))
    one.run_freely()
    result = long.wait(SECONDS)
    assert (result.finish, result.prompt_tokens) == ("cancelled", 8 * (read + 1))
    other.wait(SECONDS)
    assert one.model.passes == read + 1 + 3  # the other reads its id, and consumes two of its own


def test_everybody_cancelled_at_once_leaves_room_for_others_in_the_next_step(stepped: type[Stepped]) -> None:
    one = stepped(slots=3, prefill_chunk=8, queue_limit=8)
    one.engine.start()
    crowd = [one.engine.submit(Request([1], max_new_tokens=1000, stop_ids=(), return_state=False)) for _ in range(3)]
    one.step(4)
    one.model.wait_until_asked()
    late = [one.engine.submit(write(1)) for _ in range(3)]
    for handle in crowd:
        handle.cancel()
    before = one.model.passes
    one.run_freely()
    assert all(handle.wait(SECONDS).finish == "length" for handle in late)
    assert [handle.wait(0).finish for handle in crowd] == ["cancelled"] * 3
    # The pass under way, then the late ones' prompts, then the ids that they wrote.
    assert one.model.passes <= before + 3


def test_a_request_cancelled_before_its_prompt_is_read_has_no_state(stepped: type[Stepped]) -> None:
    one = stepped(slots=1, prefill_chunk=8)
    one.engine.start()
    reading = one.engine.submit(Request(list(range(80)), max_new_tokens=5, stop_ids=()))
    waiting = one.engine.submit(write(5))
    one.step()
    one.model.wait_until_asked()
    waiting.cancel()
    reading.cancel()
    one.run_freely()
    for handle in (reading, waiting):
        result = handle.wait(SECONDS)
        assert (result.finish, result.ids, result.state) == ("cancelled", (), None)
    assert reading.wait(0).prompt_tokens in (8, 16) and waiting.wait(0).prompt_tokens == 0


def test_cancelling_what_is_done_changes_nothing(stepped: type[Stepped]) -> None:
    one = stepped()
    one.engine.start()
    one.run_freely()
    handle = one.engine.submit(write(3))
    before = handle.wait(SECONDS)
    handle.cancel()
    assert handle.wait(0) is before and before.finish == "length"


def test_a_full_queue_refuses_and_room_is_made_by_whoever_leaves(stepped: type[Stepped]) -> None:
    one = stepped(slots=1, queue_limit=2)
    handles = [one.engine.submit(write(1)) for _ in range(3)]
    with pytest.raises(Overloaded, match="waiting"):
        one.engine.submit(write(1))
    one.engine.start()
    one.run_freely()
    for handle in handles:
        handle.wait(SECONDS)
    assert one.engine.submit(write(1)).wait(SECONDS).finish == "length"


def test_a_group_that_floods_the_queue_does_not_hold_up_another(stepped: type[Stepped]) -> None:
    one = stepped(slots=1)
    flood = [one.engine.submit(write(2, "flood")) for _ in range(10)]
    late = one.engine.submit(write(2, "late"))
    one.engine.start()
    for _ in range(200):
        if is_done(late):
            break
        one.step()
    assert is_done(late)
    assert sum(map(is_done, flood)) <= 2


def test_a_higher_priority_goes_first(stepped: type[Stepped]) -> None:
    one = stepped(slots=1)
    ordinary = [one.engine.submit(write(2)) for _ in range(4)]
    urgent = one.engine.submit(write(2, priority=1))
    one.engine.start()
    for _ in range(100):
        if is_done(urgent):
            break
        one.step()
    assert is_done(urgent) and not any(map(is_done, ordinary))


def test_a_long_prompt_does_not_stop_whoever_writes(stepped: type[Stepped]) -> None:
    """In every step the writer gets its token, while the other reads a chunk."""
    one = stepped(prefill_chunk=8)
    one.engine.start()
    writer = one.engine.submit(write(12))
    one.step(2)
    one.model.wait_until_asked()
    long = one.engine.submit(Request([5] * 200))
    one.model.allow(1)
    one.step(10)
    one.model.wait_until_asked()
    assert is_done(writer) and not is_done(long)
    one.model.allow(1)


def test_a_short_prompt_waits_for_no_more_than_its_turn_behind_other_groups_long_ones(stepped: type[Stepped]) -> None:
    """Three tenants read 50 chunks each; the fourth's few ids are read in the first step in which its turn comes."""
    one = stepped(slots=4, prefill_chunk=8)
    one.engine.start()
    long = [one.engine.submit(Request([5] * 400, group=group)) for group in "abc"]
    one.step(3)
    one.model.wait_until_asked()
    short = one.engine.submit(Request([7] * 4, group="d"))
    one.model.allow(1)
    one.step(4)
    one.model.wait_until_asked()
    assert is_done(short) and not any(map(is_done, long))
    one.model.allow(1)


def test_no_step_reads_two_chunks_however_many_wait(stepped: type[Stepped]) -> None:
    """What bounds how long a writer waits for its next token."""
    one = stepped(slots=8, prefill_chunk=8)
    handles = [one.engine.submit(Request([5] * length, group=str(length))) for length in (3, 70, 7, 33, 8, 50, 1)]
    one.engine.start()
    one.run_freely()
    for handle in handles:
        handle.wait(SECONDS)
    assert max(one.model.rows) < 16
    assert sum(one.model.rows) == 3 + 70 + 7 + 33 + 8 + 50 + 1


def test_closing_fails_what_is_unfinished_and_refuses_more(stepped: type[Stepped]) -> None:
    one = stepped(slots=1)
    one.engine.start()
    running, waiting = one.engine.submit(write(100_000)), one.engine.submit(write(1))
    one.run_freely()
    one.engine.close()
    for handle in (running, waiting):
        with pytest.raises(EngineClosed):
            handle.wait(SECONDS)
    with pytest.raises(EngineClosed):
        one.engine.submit(write(1))
    with pytest.raises(RuntimeError, match="once"):
        one.engine.start()


class Item:
    """A sequence as the scheduler sees it: `left` ids still to be read, `needs` bytes."""

    def __init__(self, group: str, left: int, priority: int = 0, needs: int = 1) -> None:
        self.group, self.left, self.priority, self.needs = group, left, priority, needs

    def next_stop(self) -> int:
        return self.left


items_of = st.lists(st.builds(Item, st.sampled_from("abc"), st.integers(1, 30), st.integers(0, 1)), max_size=12)


@given(items=items_of)
def test_turns_give_back_everybody_once_by_priority_and_in_order_within_a_group(items: list[Item]) -> None:
    turns: Turns[Item] = Turns()
    for item in items:
        turns.add(item)
    assert len(turns) == len(items) and set(turns) == set(items)
    taken = [turns.take() for _ in items]
    assert [item.priority for item in taken] == sorted((item.priority for item in items), reverse=True)
    for group in "abc":
        for priority in (0, 1):
            ours = [item for item in items if (item.group, item.priority) == (group, priority)]
            assert [item for item in taken if item in ours] == ours
    with pytest.raises(IndexError):
        turns.take()


@given(counts=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 6), min_size=2))
def test_no_group_is_two_turns_ahead_of_another_that_waits(counts: dict[str, int]) -> None:
    turns: Turns[Item] = Turns()
    for group, count in counts.items():
        for _ in range(count):
            turns.add(Item(group, 1))
    served, left = dict.fromkeys(counts, 0), dict(counts)
    for _ in range(sum(counts.values())):
        group = turns.take().group
        served[group] += 1
        left[group] -= 1
        waiting = [served[other] for other in counts if left[other]]
        assert not waiting or served[group] <= min(waiting) + 1


@given(items=items_of.filter(bool), chunk=st.integers(1, 16), slots=st.integers(1, 6))
def test_every_prompt_is_read_whole_within_the_chunk_and_the_slots(items: list[Item], chunk: int, slots: int) -> None:
    scheduler: Scheduler[Item] = Scheduler(slots, chunk, 100)
    for item in items:
        scheduler.submit(item)
    total, steps = sum(item.left for item in items), 0
    while scheduler.busy:
        scheduler.admit()
        assert len(scheduler.readers) <= slots
        plan = scheduler.plan_reading()
        assert 0 < sum(length for _, length in plan) < 2 * chunk
        for item, length in plan:
            item.left -= length
            total -= length
            if not item.left:
                scheduler.finish_reader(item)
        steps += 1
        assert steps <= 1000
    assert total == 0


def test_of_several_long_prompts_the_first_is_read_first() -> None:
    scheduler: Scheduler[Item] = Scheduler(4, 10, 10)
    first, second = Item("a", 30), Item("a", 30)
    scheduler.submit(first)
    scheduler.submit(second)
    scheduler.admit()
    for _ in range(3):
        for item, length in scheduler.plan_reading():
            item.left -= length
    assert (first.left, second.left) == (0, 30)


@given(
    needs=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 10)), min_size=1, max_size=15),
    memory=st.integers(10, 25),
    slots=st.integers(1, 5),
)
def test_the_memory_is_kept_to_and_nobody_waits_for_ever(needs: list[tuple[str, int]], memory: int, slots: int) -> None:
    scheduler: Scheduler[Item] = Scheduler(slots, 8, 100, memory)
    items = [Item(group, 4, needs=bytes_) for group, bytes_ in needs]
    for item in items:
        scheduler.submit(item)
    done: list[Item] = []
    for _ in items:
        scheduler.admit()
        held = list(scheduler.readers)
        assert held and sum(item.needs for item in held) <= memory
        # The first in the queue cannot go in only if there is no slot or no memory.
        if scheduler.waiting and len(held) < slots:
            assert sum(item.needs for item in held) + scheduler.waiting.peek().needs > memory
        scheduler.finish_reader(held[0])
        done.append(held[0])
    assert set(done) == set(items) and not scheduler.busy


def test_a_queue_without_places_refuses_by_name_and_so_do_sizes_that_cannot_be() -> None:
    scheduler: Scheduler[Item] = Scheduler(1, 8, 0)
    scheduler.submit(Item("a", 1))
    with pytest.raises(Overloaded, match="limit is 0"):
        scheduler.submit(Item("a", 1))
    for wrong in ((0, 8, 1), (1, 0, 1), (1, 8, -1)):
        with pytest.raises(ValueError, match="at least"):
            Scheduler(*wrong)
