"""The worker's parts, put together around one engine, and what the job loop asks of them."""

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infinity_worker.audio import AudioReader
from infinity_worker.batching import Batcher
from infinity_worker.cache import EmbeddingCache
from infinity_worker.catalogue import Catalogue
from infinity_worker.cold_start import ColdStart
from infinity_worker.engine import Engine, wait_until_embedding
from infinity_worker.handler import async_handler
from infinity_worker.images import ImageReader
from infinity_worker.images.fetching import Fetcher
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.lanes import Meter
from infinity_worker.logs import JobRecord
from infinity_worker.prompts import built_in_prompts
from infinity_worker.results import JobResult
from infinity_worker.settings import Settings
from infinity_worker.supervisor import CANARY_S, CanaryWatch, Supervisor
from infinity_worker.time_limit import TimeLimit
from infinity_worker.tokens import TokenCounter, learn_how_engine_counts, load_counters
from infinity_worker.worker import Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """How a worker is.

    Attributes:
        embeds: whether the engine embeds, as far as is known; says nothing until it is loaded.
        models: the served names; empty until the engine is loaded.
        restarts: how often the engine ended and was started again.
        waiting_items: items of requests that are not done.
    """

    embeds: bool
    models: Sequence[str]
    restarts: int
    waiting_items: int


class Service:
    """Answers jobs with one engine.

    Args:
        settings: the worker's.
        engine: the worker's own, started; None for the server at `infinity_url`.
        cold_start: told when the phases of the start are over.
        meter: told of each engine request; None for nobody.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine | None,
        cold_start: ColdStart,
        meter: Meter | None = None,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._cold_start = cold_start
        self._models: tuple[str, ...] = ()
        self._url = engine.url if engine else str(settings.infinity_url)
        self._client = InfinityClient(
            self._url, timeout_s=settings.engine_timeout_s, api_key=settings.infinity_api_key
        )
        canary_s = min(CANARY_S, settings.engine_timeout_s)
        self._watch = (
            Supervisor(engine, self._client, settings, canary_s)
            if engine
            else CanaryWatch(self._client, canary_s)
        )
        counters = load_counters(settings)
        fetcher = _fetcher(settings)
        self._worker = Worker(
            self._client,
            _catalogue(self._client, settings, counters),
            Batcher(
                self._client,
                self._watch,
                requests_under_way=settings.engine_requests,
                most_items=settings.max_waiting_items,
                meter=meter,
            ),
            EmbeddingCache(settings.cache_mb * 1_000_000),
            counters,
            ImageReader(
                fetcher, max_bytes=settings.image_max_bytes, max_pixels=settings.image_max_pixels
            ),
            AudioReader(fetcher, max_bytes=settings.image_max_bytes),
            settings.max_items,
            TimeLimit(settings.job_timeout_s),
        )

    async def prepare(self) -> None:
        """Wait until every model embeds.

        Raises:
            EngineStartError: one does not.
        """
        mark = self._cold_start.mark
        models = (
            await self._engine.ready(mark)
            if self._engine
            else await wait_until_embedding(self._url, self._settings, mark)
        )
        # A client of its own: the job loop's belongs to another event loop.
        async with InfinityClient(self._url, api_key=self._settings.infinity_api_key) as client:
            await learn_how_engine_counts(self._worker.counters, client)
        self._models = tuple(model.name for model in models)
        log.info("engine ready, serving %s", ", ".join(self._models))
        # What start-up left in memory stays: the collector need not walk it during requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)

    async def answer(self, job: Mapping[str, object], record: JobRecord) -> JobResult:
        """Answer one job."""
        return await async_handler(job, self._worker, record)

    def taking(self) -> None:
        """Note that the worker asks for jobs."""
        self._cold_start.mark("taking")
        self._cold_start.write()

    def health(self) -> Health:
        """How the worker is now."""
        return Health(
            self._watch.embeds, self._models, self._watch.life, self._worker.batcher.held_items
        )

    def engine_memory(self) -> int | None:
        """The engine's resident bytes, where it is this worker's own; takes milliseconds."""
        return self._engine.memory_bytes() if self._engine else None

    async def supervise(self) -> None:
        """Keep the engine alive until cancelled.

        Raises:
            EngineLostError: it cannot be kept alive.
        """
        await self._watch.run()

    async def close(self) -> None:
        """End what is held open."""
        await self._worker.close()


def _fetcher(settings: Settings) -> Fetcher:
    return Fetcher(
        max_bytes=settings.image_max_bytes,
        timeout_s=settings.image_fetch_timeout_s,
        at_once=settings.image_fetches,
        allowed_hosts=settings.image_allowed_hosts,
    )


def _catalogue(
    client: InfinityClient, settings: Settings, counters: Mapping[str, TokenCounter]
) -> Catalogue:
    prompts = {
        model.name: built_in_prompts(model.source) or built_in_prompts(model.name)
        for model in settings.models
    }
    return Catalogue(
        client,
        aliases=settings.aliases,
        prompts=prompts | dict(settings.prompts),
        counters=counters,
    )
