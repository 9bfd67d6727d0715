"""Answers jobs. Every job enters at `async_handler`, the one place where errors become responses.

A job's `input` is one of two things:

    {"openai_route": "/v1/embeddings", "openai_input": {…}}   from /openai/v1/*   → [result]
    {"input" | "text" | "image": …}                           from /run, /runsync → result
    {"query": …, "documents" | "docs": …}                     likewise
"""

import logging
from collections.abc import Coroutine, Mapping
from typing import TypeVar

from infinity_worker.embedding import embed
from infinity_worker.errors import InvalidRequest, RequestError, RouteNotFound
from infinity_worker.infinity_client import InfinityError
from infinity_worker.logs import JobRecord, place_of
from infinity_worker.results import JobResult
from infinity_worker.schema import EmbeddingRequest
from infinity_worker.scoring import classify, rerank
from infinity_worker.scoring_schema import ClassifyRequest, RerankRequest
from infinity_worker.time_limit import TimeIsUpError
from infinity_worker.utils import JsonObject, create_error_response
from infinity_worker.worker import Worker

log = logging.getLogger(__name__)

ROUTES = ("/v1/embeddings", "/v1/rerank", "/v1/classify", "/v1/models")
_MODEL = "/models/"

T = TypeVar("T")


async def async_handler(
    job: Mapping[str, object], worker: Worker, record: JobRecord | None = None
) -> JobResult:
    """Answer one job; never raises but for cancellation.

    Args:
        job: the platform's, with its `input`.
        worker: the engine's client and the limits.
        record: where to note what the log may say about the job.

    Returns:
        The result; `[result]` for an OpenAI route. A failure is an error object (see
        `create_error_response`), and `[error object]` where the caller of an OpenAI route is at
        fault: that job completes, so that nobody retries it. Embeddings in `float` format are
        float32 arrays, to be written by orjson.
    """
    record = record or JobRecord(str(job.get("id")))
    job_input = job.get("input")
    is_openai = isinstance(job_input, dict) and "openai_route" in job_input
    try:
        if isinstance(job_input, dict) and is_openai:
            route, body = job_input["openai_route"], job_input.get("openai_input")
            return await _in_time(handle_openai_route(route, body, worker, record), worker, record)
        return await _in_time(handle_standard_format(job_input, worker, record), worker, record)
    except RequestError as error:
        failure = create_error_response(str(error), error.type, error.code, error.param)
        return [failure] if is_openai else failure
    except InfinityError as error:
        # Only a refused input is the caller's fault; an overloaded or absent engine is ours.
        message = f"{error.param}: {error}" if error.param else str(error)
        failure = create_error_response(message, error.type, error.code, error.param)
        return [failure] if is_openai and error.code == InvalidRequest.code else failure
    except Exception as error:  # noqa: BLE001  # the one place where the unforeseen ends
        log.error("job %s failed unexpectedly: %s", record.job_id, place_of(error))  # noqa: TRY400  # a traceback may repeat an input
        return create_error_response("internal error: see the worker's log", "internal_error", 500)


async def _in_time(answer: Coroutine[object, object, T], worker: Worker, record: JobRecord) -> T:
    """Await an answer until the job's time is over.

    Raises:
        InfinityError: it is, and this is why.
    """
    try:
        return await worker.time_limit.within(answer)
    except TimeIsUpError:
        raise worker.batcher.late(record.model) from None


async def handle_openai_route(
    route: object, body: object, worker: Worker, record: JobRecord
) -> list[JsonObject]:
    """Answer one OpenAI-compatible call with a list of exactly one result.

    Args:
        route: the path after `/openai`, with or without `/v1`.
        body: the call's JSON body; missing or empty for a GET.
        worker: the engine's client and the limits.
        record: where to note what the log may say about the job.

    Raises:
        RequestError: the caller's fault.
        InfinityError: the engine could not answer.
    """
    match _canonical(route):
        case "/embeddings":
            record.route = "/v1/embeddings"
            return [await embed(EmbeddingRequest.from_openai(body), worker, record)]
        case "/rerank":
            record.route = "/v1/rerank"
            return [await rerank(RerankRequest.read(body, worker.max_items), worker, record)]
        case "/classify":
            record.route = "/v1/classify"
            return [await classify(ClassifyRequest.read(body, worker.max_items), worker, record)]
        case "/models":
            record.route = "/v1/models"
            return [await worker.catalogue.listing()]
        case path if path.startswith(_MODEL):
            record.route = "/v1/models/{model}"
            return [await worker.catalogue.entry(path.removeprefix(_MODEL))]
        case _:
            raise RouteNotFound(f"no such route: {', '.join(ROUTES)} are served")


async def handle_standard_format(
    job_input: object, worker: Worker, record: JobRecord
) -> JsonObject:
    """Answer one `/run` or `/runsync` request.

    Raises:
        RequestError: the caller's fault.
        InfinityError: the engine could not answer.
    """
    if isinstance(job_input, dict) and "query" in job_input:
        return await rerank(RerankRequest.read(job_input, worker.max_items), worker, record)
    return await embed(EmbeddingRequest.from_standard(job_input), worker, record)


def _canonical(route: object) -> str:
    """`/v1/embeddings/?x=1` and `embeddings` both are `/embeddings`."""
    if not isinstance(route, str):
        raise InvalidRequest("openai_route must be a string", "openai_route")
    path = "/" + route.partition("?")[0].strip("/")
    return path.removeprefix("/v1") or "/"
