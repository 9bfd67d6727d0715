import asyncio
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.budget import Budget

TOTAL = 10


@given(st.lists(st.tuples(st.integers(1, 15), st.booleans()), max_size=30))
async def test_never_more_than_there_is_and_nobody_waits_for_ever(
    wishes: list[tuple[int, bool]],
) -> None:
    budget = Budget(TOTAL)
    held = most = served = 0

    async def work(amount: int) -> None:
        nonlocal held, most, served
        async with budget.hold(amount):
            held += min(amount, TOTAL)
            most = max(most, held)
            try:
                await asyncio.sleep(0)
                served += 1
            finally:
                held -= min(amount, TOTAL)

    tasks = [asyncio.ensure_future(work(amount)) for amount, _ in wishes]
    await asyncio.sleep(0)
    for task, (_, is_cancelled) in zip(tasks, wishes, strict=True):
        if is_cancelled:
            task.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks, return_exceptions=True)
        async with budget.hold(TOTAL):  # all of it came back
            assert most <= TOTAL
    assert served >= sum(not is_cancelled for _, is_cancelled in wishes)


async def test_who_came_first_is_served_first() -> None:
    budget = Budget(TOTAL)
    order: list[str] = []

    async def work(name: str, amount: int) -> None:
        async with budget.hold(amount):
            order.append(name)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(budget.hold(6))
        large = asyncio.ensure_future(work("large", 8))
        await asyncio.sleep(0)
        small = asyncio.ensure_future(work("small", 1))
        await asyncio.sleep(0)
        assert order == []
    async with asyncio.timeout(10):
        await asyncio.gather(large, small)
    assert order == ["large", "small"]


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["stay", "stay", "give up"]))),
)
async def test_everybody_gets_in_in_turn_whoever_gives_up(
    most: int, visits: list[tuple[int, str]]
) -> None:
    room = Budget(most)
    inside: list[int] = []
    served: list[int] = []

    async def visit(number: int, items: int) -> None:
        await room.take(items)
        inside.append(items)
        assert sum(inside) <= most or len(inside) == 1
        try:
            await asyncio.sleep(0)
            served.append(number)
        finally:
            inside.remove(items)
            room.give_back(items)

    tasks = [asyncio.ensure_future(visit(n, items)) for n, (items, _) in enumerate(visits)]
    for task, (_, fate) in zip(tasks, visits, strict=True):
        if fate == "give up":
            # At the door, inside, or given the place in this very turn of the loop.
            await asyncio.sleep(0)
            task.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks, return_exceptions=True)
    stayed = [number for number, (_, fate) in enumerate(visits) if fate == "stay"]
    assert [number for number in served if number in stayed] == stayed
    assert not room.is_short
