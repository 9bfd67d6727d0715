"""The bound on what is in the worker, for any order of comings and goings."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.waiting_room import WaitingRoom


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["stay", "stay", "give up"]))),
)
async def test_it_is_never_overfull_and_everybody_gets_in(
    most: int, visits: list[tuple[int, str]]
) -> None:
    room = WaitingRoom(most)
    inside: list[int] = []
    served: list[int] = []

    async def visit(number: int, items: int) -> None:
        await room.enter(items)
        inside.append(items)
        assert sum(inside) <= most or len(inside) == 1
        try:
            await asyncio.sleep(0)
            served.append(number)
        finally:
            inside.remove(items)
            room.leave(items)

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
    assert not room.is_full
