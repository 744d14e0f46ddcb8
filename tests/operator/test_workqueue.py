"""Rules of the work queue."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from alidade_operator.workqueue import LAST_RETRY_S, WorkQueue


def queue() -> WorkQueue[str]:
    """A queue without jitter."""
    return WorkQueue(jitter=lambda: 0.0)


async def test_a_key_waits_once_however_often_it_is_added() -> None:
    work = queue()
    for _ in range(5):
        work.add("a")
    assert len(work) == 1
    assert await work.take() == "a"
    assert len(work) == 0


async def test_keys_are_taken_in_the_order_they_came() -> None:
    work = queue()
    for key in ("a", "b", "a", "c"):
        work.add(key)
    assert [await work.take() for _ in range(3)] == ["a", "b", "c"]


async def test_a_key_is_never_at_two_workers() -> None:
    work = queue()
    work.add("a")
    await work.take()
    work.add("a")
    assert len(work) == 0, "it waits until the first worker is done"
    work.done("a")
    assert await work.take() == "a"
    work.done("a")
    assert len(work) == 0


async def test_a_worker_waits_for_a_key() -> None:
    work = queue()
    taking = asyncio.create_task(work.take())
    await asyncio.sleep(0)
    assert not taking.done()
    work.add("a")
    assert await taking == "a"


async def test_the_earliest_of_several_delays_counts() -> None:
    work = queue()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    work.add_after("a", 600)
    work.add_after("a", 0.02)
    work.add_after("a", 300)
    assert await work.take() == "a"
    assert 0.02 <= loop.time() - begun < 60
    work.close()


async def test_a_delay_that_is_over_adds_at_once() -> None:
    work = queue()
    work.add_after("a", 0)
    assert len(work) == 1


async def test_failures_wait_longer_each_time_up_to_a_minute_and_success_forgets_them() -> None:
    work = queue()
    delays = []
    for _ in range(12):
        work.add("a")
        await work.take()
        delays.append(work.failed("a"))
        work.close()
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == LAST_RETRY_S
    work.add("a")
    await work.take()
    work.done("a")
    work.add("a")
    await work.take()
    assert work.failed("a") == 0.1
    work.close()


async def test_keys_that_failed_together_do_not_return_together() -> None:
    chance = iter([0.0, 0.5, 0.99])
    work: WorkQueue[str] = WorkQueue(jitter=lambda: next(chance))
    delays = []
    for key in ("a", "b", "c"):
        work.add(key)
        await work.take()
        delays.append(work.failed(key))
    assert delays == sorted(set(delays))
    work.close()


async def test_a_failing_key_waits_out_its_delay_even_when_changes_arrive() -> None:
    work = queue()
    work.add("a")
    await work.take()
    work.add("a")
    work.failed("a")
    assert len(work) == 0
    work.close()


async def test_the_time_a_key_waited_is_told() -> None:
    waits: list[float] = []
    work: WorkQueue[str] = WorkQueue(on_wait=waits.append)
    work.add("a")
    await asyncio.sleep(0.01)
    await work.take()
    assert len(waits) == 1
    assert waits[0] >= 0.01


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done", "failed"]), st.sampled_from("abc")), max_size=60))
def test_no_order_of_calls_loses_or_doubles_a_key(calls: list[tuple[str, str]]) -> None:
    """Against a model: the set of keys that are owed a look, and the set that workers have."""

    async def run() -> None:
        work = queue()
        owed: set[str] = set()
        active: set[str] = set()
        for call, key in calls:
            if call == "add":
                work.add(key)
                owed.add(key)
            elif call == "take" and len(work):
                taken = await work.take()
                assert taken not in active
                active.add(taken)
                owed.discard(taken)
            elif call == "done" and key in active:
                active.discard(key)
                work.done(key)
            elif call == "failed" and key in active:
                active.discard(key)
                work.failed(key)
                owed.discard(key)  # it comes back by its delay
            assert len(work) == len(owed - active)
        work.close()

    asyncio.run(run())
