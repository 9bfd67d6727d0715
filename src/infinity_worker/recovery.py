"""What to do when an engine request fails: the policy, and what it asks of the engine's watch."""

from enum import StrEnum
from typing import Protocol

from infinity_worker.infinity_client import (
    InfinityBadResponse,
    InfinityError,
    InfinityOverloaded,
    InfinityRejected,
    InfinityTimeout,
    InfinityUnavailable,
)

# A job whose items were with the engine at so many of its ends is not tried again: it may be the
# reason.
MAX_CRASHES = 2


class Finding(StrEnum):
    """What a look at the engine shows after a request failed."""

    ANSWERS = "answers"
    """It embeds: the request was at fault, or its connection broke."""
    CRASHED = "crashed"
    """It ended, or hung and was killed: what was under way is lost, and it is started again."""
    SILENT = "silent"
    """It does not embed, and nobody here can start it again."""


class Step(StrEnum):
    """What happens to the jobs of a request that failed."""

    FAIL = "fail"
    AGAIN = "again"
    """The same once more, at once."""
    APART = "apart"
    """Once more, each job in requests of its own."""
    PAUSE = "pause"
    """The same once more, after a pause."""
    QUARANTINE = "quarantine"
    """Once more when the engine is back, each job with nothing else under way."""


def needs_a_look(error: InfinityError) -> bool:
    """Tell whether an error may mean that the engine is gone, hangs, or is broken for good."""
    return isinstance(error, InfinityTimeout | InfinityUnavailable | InfinityBadResponse)


def next_step(error: InfinityError, finding: Finding, *, jobs: int, tries: int) -> Step:
    """Decide what happens to the jobs of a request that failed.

    Args:
        error: how it failed.
        finding: what the engine is like, where the error needs a look at it.
        jobs: how many jobs shared the request.
        tries: how often one of them was sent again already because a connection broke.
    """
    if isinstance(error, InfinityOverloaded):
        return Step.PAUSE
    apart = Step.APART if jobs > 1 else Step.FAIL
    if isinstance(error, InfinityRejected):
        return apart
    if finding is Finding.CRASHED:
        return Step.QUARANTINE
    if finding is Finding.SILENT:
        return Step.FAIL
    # The engine closes idle connections: one that broke says nothing about what it carried.
    if isinstance(error, InfinityUnavailable) and tries == 0:
        return Step.AGAIN
    return apart


class Watch(Protocol):
    """Who knows how the engine is."""

    @property
    def life(self) -> int:
        """Which of its lives the engine is in; a request of an earlier one is lost."""

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent."""

    async def ready(self) -> None:
        """Wait until requests may be sent.

        Raises:
            InfinityUnavailable: that will never be.
        """

    async def diagnose(self, model: str, life: int) -> Finding:
        """Look at the engine after a request for a model failed that was sent in a certain life."""


class Unwatched:
    """Takes the engine for a living one."""

    life = 0
    is_ready = True

    async def ready(self) -> None:
        """Return at once."""

    async def diagnose(self, model: str, life: int) -> Finding:  # noqa: ARG002  # as `Watch` has it
        """Find that it answers."""
        return Finding.ANSWERS
