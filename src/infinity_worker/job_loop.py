"""Takes jobs from RunPod and reports their results, on the RunPod SDK."""

from collections.abc import Awaitable, Callable, Mapping

import orjson
import runpod
from runpod.serverless.modules.rp_logger import RunPodLogger

from infinity_worker.handler import JobResult
from infinity_worker.settings import Settings

Handler = Callable[[Mapping[str, object]], Awaitable[JobResult]]


def run(handler: Handler, settings: Settings) -> None:
    """Take jobs until the platform ends the worker.

    The SDK reads its own arguments: with `--test_input` one job is run, with `--rp_serve_api` its
    development server.
    """

    async def platform_handler(job: Mapping[str, object]) -> object:
        return to_platform(await handler(job))

    if "RUNPOD_LOG_LEVEL" not in settings.environment:
        # At its default level, DEBUG, the SDK prints every result.
        RunPodLogger().set_level("WARN")
    runpod.serverless.start(
        {
            "handler": platform_handler,
            "concurrency_modifier": lambda _current: settings.max_concurrency,
        }
    )


def to_platform(result: JobResult) -> object:
    """Give a result the form that the SDK posts.

    A failed job's `error` must be a string: a structured one was seen to end as COMPLETED without
    output (runpod-python#299). It is the error object as JSON text.
    """
    if isinstance(result, dict) and "error" in result:
        return {"error": orjson.dumps(result["error"]).decode()}
    # The SDK writes results with the standard library, which knows no arrays.
    return orjson.loads(orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY))
