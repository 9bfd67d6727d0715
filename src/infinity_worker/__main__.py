"""The container's entry: `python -m infinity_worker` runs the engine and the job loop."""

import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType

from infinity_worker import logs
from infinity_worker.batching import Batcher
from infinity_worker.cache import EmbeddingCache
from infinity_worker.engine import Engine, EngineStartError, wait_until_embedding
from infinity_worker.handler import async_handler
from infinity_worker.images import ImageReader
from infinity_worker.images.fetching import Fetcher
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.logs import JobRecord
from infinity_worker.results import JobResult
from infinity_worker.settings import Settings, SettingsError
from infinity_worker.tokens import TokenCounter, learn_how_engine_counts, load_counters
from infinity_worker.worker import Worker

log = logging.getLogger("infinity_worker")


def main() -> int:
    """Start the engine, take jobs until told to end, stop the engine.

    Returns:
        The process's exit status.
    """
    try:
        settings = Settings.from_process()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure(settings)
    signal.signal(signal.SIGTERM, _leave)
    engine = None if settings.infinity_url else Engine(settings)
    try:
        return run(settings, engine)
    except EngineStartError as error:
        log.error("%s", error)  # noqa: TRY400  # the message says it all, the traceback nothing
        return 1
    finally:
        if engine is not None:
            engine.stop()


def run(settings: Settings, engine: Engine | None) -> int:
    """Load the models, then take jobs.

    Raises:
        EngineStartError: the engine did not come up.
    """
    began = time.monotonic()
    if engine is None:
        url = str(settings.infinity_url)
        models = asyncio.run(wait_until_embedding(url, settings))
    else:
        url = engine.url
        engine.start()
        models = asyncio.run(engine.ready())
    log.info(
        "engine ready after %.1f s, serving %s",
        time.monotonic() - began,
        ", ".join(model.name for model in models),
    )
    # The SDK takes a second to import: not needed to find out that the engine cannot start.
    from infinity_worker import job_loop  # noqa: PLC0415

    client = InfinityClient(
        url, timeout_s=settings.engine_timeout_s, api_key=settings.infinity_api_key
    )
    batcher = Batcher(client, requests_under_way=settings.engine_requests)
    counters = load_counters(settings)
    asyncio.run(_compare_counts(counters, url, settings))
    cache = EmbeddingCache(settings.cache_mb * 1_000_000)
    fetcher = Fetcher(
        max_bytes=settings.image_max_bytes,
        timeout_s=settings.image_fetch_timeout_s,
        at_once=settings.image_fetches,
        allowed_hosts=settings.image_allowed_hosts,
    )
    images = ImageReader(
        fetcher, max_bytes=settings.image_max_bytes, max_pixels=settings.image_max_pixels
    )
    worker = Worker(client, batcher, cache, counters, images, settings.max_items)

    async def handler(job: Mapping[str, object], record: JobRecord) -> JobResult:
        return await async_handler(job, worker, record)

    # What start-up left in memory stays: the collector need not walk it during requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    job_loop.run(handler, settings, close=worker.close)
    return 0


async def _compare_counts(
    counters: Mapping[str, TokenCounter], url: str, settings: Settings
) -> None:
    # A client of its own: the job loop's belongs to another event loop.
    async with InfinityClient(url, api_key=settings.infinity_api_key) as client:
        await learn_how_engine_counts(counters, client)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End the process by an exception, so that the engine is stopped on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
