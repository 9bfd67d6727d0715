"""How long anything is waited for."""

import asyncio
from collections.abc import Callable

LONGEST_S = 120.0
"""A job that takes longer is lost."""

_POLL_S = 0.02


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it did not, for as long as any job may take.
    """
    async with asyncio.timeout(LONGEST_S):
        while not holds():  # noqa: ASYNC110  # plain counters
            await asyncio.sleep(_POLL_S)
