"""What the handlers of one worker share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from infinity_worker.batching import Batcher
from infinity_worker.cache import EmbeddingCache
from infinity_worker.catalogue import Catalogue
from infinity_worker.images import ImageReader
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.time_limit import TimeLimit
from infinity_worker.tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class Worker:
    """What a handler needs to answer a job.

    Attributes:
        client: the engine.
        catalogue: finds the model that a request means.
        batcher: sends the items of many jobs to the engine together.
        cache: remembers embeddings of texts.
        counters: token counters by served name; a model without one has its usage from the engine.
        images: fetches and verifies images.
        max_items: the most items in one request.
        time_limit: of each job, waiting included.
    """

    client: InfinityClient
    catalogue: Catalogue
    batcher: Batcher
    cache: EmbeddingCache = field(default_factory=lambda: EmbeddingCache(0))
    counters: Mapping[str, TokenCounter] = field(default_factory=dict)
    images: ImageReader = field(default_factory=ImageReader)
    max_items: int = 10_000
    time_limit: TimeLimit = field(default_factory=lambda: TimeLimit(480.0))

    async def close(self) -> None:
        """End its connections and threads."""
        await self.client.close()
        await self.images.close()
