"""One time limit for many tasks."""

import asyncio

import pytest

from infinity_worker.time_limit import TimeIsUpError, TimeLimit


async def work(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def test_what_is_late_ends_and_what_is_not_goes_on() -> None:
    limit = TimeLimit(0.5)
    long = [asyncio.ensure_future(limit.within(work(3_600))) for _ in range(3)]
    short = [asyncio.ensure_future(limit.within(work(0))) for _ in range(3)]
    assert await asyncio.gather(*short) == [0, 0, 0]
    for task in long:
        with pytest.raises(TimeIsUpError):
            await task
    # The timer is set again for whoever comes after everybody has left.
    with pytest.raises(TimeIsUpError):
        await limit.within(work(3_600))
    assert await limit.within(work(0)) == 0


async def test_it_is_counted_from_the_start_of_each() -> None:
    limit = TimeLimit(0.4)
    first = asyncio.ensure_future(limit.within(work(3_600)))
    await asyncio.sleep(0.2)
    second = asyncio.ensure_future(limit.within(work(3_600)))
    done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    assert done == {first}
    with pytest.raises(TimeIsUpError):
        await second


async def test_being_cancelled_is_not_being_late() -> None:
    limit = TimeLimit(3_600)
    task = asyncio.ensure_future(limit.within(work(3_600)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_being_cancelled_at_the_same_moment_is_being_cancelled() -> None:
    limit = TimeLimit(0.0)
    task = asyncio.ensure_future(limit.within(work(3_600)))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_is_passed_on() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await TimeLimit(3_600).within(fail())
