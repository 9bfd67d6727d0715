"""Which items go to the engine together: one engine request serves many jobs.

The engine pays for every request it gets: HTTP, validation, the response. So only a few requests
are under way at a time, and what arrives meanwhile travels together in the next. There is no timer:
a worker with nothing under way sends at once. While something is, the next request leaves once its
part of all who are around waits (`gathering.py`); otherwise the first of the callers that come back
after a large request would leave alone, and the engine would be busy with crumbs.

Jobs take turns. Every request carries the small jobs that wait, whole, and a share of the large
ones that takes the engine no longer than a moment, so that a job of 2,048 texts does not hold up a
job of one.
"""

import asyncio
from collections.abc import Sequence

from infinity_worker.budget import Budget
from infinity_worker.infinity_client import (
    EmbeddingBatch,
    InfinityError,
    InfinityOverloaded,
    InfinityTimeout,
    InfinityUnavailable,
)
from infinity_worker.lanes import Embedder, Kind, Lane, Meter
from infinity_worker.quarantine import Quarantine
from infinity_worker.recovery import Finding, Unwatched, Watch
from infinity_worker.turns import Ticket
from infinity_worker.utils import Modality

# Where jobs do not travel together, the engine has to gather them: it gets more requests at a time.
_APART_UNDER_WAY = 32


class Batcher:
    """Embeds the items of many jobs in few engine requests.

    Args:
        engine: where the requests go.
        watch: knows how the engine is.
        requests_under_way: how many requests for one model may be under way at a time.
        most_items: how many items there may be of jobs that are not done; others wait outside.
        meter: told of the requests; None for nobody.
    """

    def __init__(
        self,
        engine: Embedder,
        watch: Watch | None = None,
        *,
        requests_under_way: int = 2,
        most_items: int = 100_000,
        meter: Meter | None = None,
    ) -> None:
        self._engine = engine
        self._watch = watch or Unwatched()
        self._quarantine = Quarantine(self._watch)
        self._room = Budget(most_items)
        self._under_way = requests_under_way
        self._meter = meter
        self._lanes: dict[Kind, Lane] = {}
        self._looks: set[asyncio.Task[Finding]] = set()

    @property
    def held_items(self) -> int:
        """How many items there are of jobs that are not done."""
        return self._room.held

    async def embed(
        self,
        model: str,
        items: Sequence[str],
        modality: Modality,
        *,
        together: bool,
        alone: bool = False,
    ) -> EmbeddingBatch:
        """Embed one job's items of one modality. Cancelling this takes them out of what waits.

        Args:
            model: a served name.
            items: any number of them.
            modality: what all of them are.
            together: whether jobs of this model share requests. Their `prompt_tokens` are then
                those of whole requests.
            alone: whether this one keeps to requests of its own nevertheless.

        Raises:
            InfinityError: the engine could not answer; `item` says for which one, if that is known.
        """
        lane = self._lane(Kind(model, modality, together))
        return await self._answered(lane, Ticket(items, alone=alone or not together))

    async def embed_one(
        self, model: str, modality: Modality, uri: str, size: int
    ) -> EmbeddingBatch:
        """Embed one image or recording, together with others that wait, of whichever jobs.

        Args:
            model: a served name.
            modality: which of the two it is.
            uri: the thing itself as a data URI.
            size: pixels of an image, bytes of a recording; a request carries only so many.

        Raises:
            InfinityError: the engine could not answer.
        """
        lane = self._lane(Kind(model, modality, together=True))
        return await self._answered(lane, Ticket([uri], [size]))

    async def score(
        self, scorer: Embedder, model: str, items: Sequence[str], sizes: Sequence[int] | None = None
    ) -> EmbeddingBatch:
        """Have one job's texts scored, in requests of its own, within the same bounds.

        Args:
            scorer: where the requests go.
            model: a served name.
            items: any number of texts.
            sizes: what each counts towards a request's limit; its characters if not given.

        Raises:
            InfinityError: the engine could not answer; `item` says for which one, if that is known.
        """
        kind = Kind(model, "text", together=False)
        lane = Lane(scorer, self._watch, self._quarantine, kind, self._under_way, self._meter)
        return await self._answered(lane, Ticket(items, sizes, alone=True))

    def _lane(self, kind: Kind) -> Lane:
        lane = self._lanes.get(kind)
        if lane is None:
            most = self._under_way if kind.together else _APART_UNDER_WAY
            lane = Lane(self._engine, self._watch, self._quarantine, kind, most, self._meter)
            self._lanes[kind] = lane
        return lane

    async def _answered(self, lane: Lane, ticket: Ticket) -> EmbeddingBatch:
        items = len(ticket.items)
        await self._room.take(items)
        lane.add(ticket)
        try:
            return await ticket.done
        finally:
            lane.drop(ticket)
            self._room.give_back(items)

    def late(self, model: str) -> InfinityError:
        """Say why a job for a model is not done in time, and have the engine looked at.

        A request that nobody waits for any more is dropped, and could not tell that it hung.
        """
        if not self._watch.is_ready:
            return InfinityUnavailable("the engine was not back in the job's time: try again later")
        lanes = [lane for kind, lane in self._lanes.items() if kind.model == model]
        if any(lane.is_overloaded for lane in lanes):
            return InfinityOverloaded("the engine's queue stayed full: try again later")
        if self._room.is_short:
            return InfinityOverloaded("the worker's queue stayed full: try again later")
        if model:
            look = asyncio.create_task(self._watch.diagnose(model, self._watch.life))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)
        return InfinityTimeout("the job was not done in its time: send fewer items a request")
