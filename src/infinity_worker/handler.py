"""Answers jobs. Every job enters at `async_handler`, the one place where errors become responses.

A job's `input` is one of two things:

    {"openai_route": "/v1/embeddings", "openai_input": {…}}   from /openai/v1/*   → [result]
    {"input" | "text" | "image": …}                           from /run, /runsync → result
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from infinity_worker.batching import Batcher
from infinity_worker.cache import EmbeddingCache
from infinity_worker.infinity_client import EmbeddingBatch, InfinityClient, InfinityError, Model
from infinity_worker.logs import JobRecord, place_of
from infinity_worker.parts import Part, check_sizes, merge, split
from infinity_worker.response import embedding_response
from infinity_worker.results import JobResult
from infinity_worker.schema import (
    EmbeddingRequest,
    InvalidRequest,
    ModelNotFound,
    RequestError,
    RouteNotFound,
)
from infinity_worker.time_limit import TimeIsUpError, TimeLimit
from infinity_worker.tokens import TokenCounter
from infinity_worker.turns import SMALL_ITEMS
from infinity_worker.utils import JsonObject, create_error_response

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Worker:
    """What a handler needs to answer a job.

    Attributes:
        client: the engine.
        batcher: sends the items of many jobs to the engine together.
        cache: remembers embeddings of texts.
        counters: token counters by served name; a model without one has its usage from the engine.
        max_items: the most items in one request.
        time_limit: of each job, waiting included.
    """

    client: InfinityClient
    batcher: Batcher
    cache: EmbeddingCache = field(default_factory=lambda: EmbeddingCache(0))
    counters: Mapping[str, TokenCounter] = field(default_factory=dict)
    max_items: int = 10_000
    time_limit: TimeLimit = field(default_factory=lambda: TimeLimit(480.0))


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
        case "/models":
            record.route = "/v1/models"
            return [await list_models(worker)]
        case _:
            raise RouteNotFound("no such route: /v1/embeddings and /v1/models are served")


async def handle_standard_format(
    job_input: object, worker: Worker, record: JobRecord
) -> JsonObject:
    """Answer one `/run` or `/runsync` request.

    Raises:
        RequestError: the caller's fault.
        InfinityError: the engine could not answer.
    """
    return await embed(EmbeddingRequest.from_standard(job_input), worker, record)


async def list_models(worker: Worker) -> JsonObject:
    """List the served models in OpenAI's shape, with what each can do."""
    return {
        "object": "list",
        "data": [
            {
                "id": model.name,
                "object": "model",
                "created": model.created,
                "owned_by": "infinity",
                "capabilities": sorted(model.capabilities),
            }
            for model in await worker.client.models()
        ],
    }


async def embed(request: EmbeddingRequest, worker: Worker, record: JobRecord) -> JsonObject:
    """Embed a request's items: split by modality, side by side, answered in the caller's order.

    Raises:
        RequestError: the caller's fault.
        InfinityError: the engine could not answer.
    """
    check_sizes(request, worker.max_items)
    model = _choose_model(request.model, await worker.client.models())
    _check_modalities(request, model)
    parts = split(request.items)
    record.model, record.encoding = model.name, request.encoding_format
    asked_at = time.perf_counter()
    answers = await _all_or_none(
        [_embed_part(part, model.name, request.field, worker) for part in parts]
    )
    record.engine_s = time.perf_counter() - asked_at
    batches = [batch for batch, _, _ in answers]
    embeddings = merge(parts, batches, text_tokens=sum(tokens for _, tokens, _ in answers))
    record.cached = sum(hits for _, _, hits in answers)
    record.images = embeddings.images
    record.texts = len(request.items) - embeddings.images
    record.tokens = embeddings.text_tokens
    return embedding_response(request, model.name, embeddings)


async def _embed_part(
    part: Part, model: str, field_name: str, worker: Worker
) -> tuple[EmbeddingBatch, int, int]:
    """Embed one part: its embeddings, its tokens, and how many of them were remembered.

    The engine works while the tokens are counted.
    """
    counter = worker.counters.get(model) if part.modality == "text" else None
    texts = part.contents
    try:
        if counter is None:
            batch = await worker.batcher.embed(model, part.contents, part.modality, together=False)
            return batch, batch.prompt_tokens if part.modality == "text" else 0, 0
        if len(texts) > SMALL_ITEMS and not worker.cache.keeps and counter.may_ask_engine(texts):
            # Counting thousands of texts costs more than sharing their requests would bring.
            batch = await worker.batcher.embed(model, texts, "text", together=True, alone=True)
            return batch, counter.from_engine(batch.prompt_tokens, len(texts)), 0
        (batch, hits), tokens = await _both(
            worker.cache.embed(worker.batcher, model, texts), counter.count(texts)
        )
    except InfinityError as error:
        if error.item is not None:
            error.param = f"{field_name}[{part.positions[error.item]}]"
        raise
    return batch, tokens, hits


async def _both(
    first: Coroutine[object, object, T], second: Coroutine[object, object, U]
) -> tuple[T, U]:
    """Await two things side by side; when either fails, or this is cancelled, both end."""
    task = asyncio.ensure_future(first)
    try:
        # The task starts at the first turn of the loop, which may be the wait for itself.
        await asyncio.sleep(0)
        other = await second
        return await task, other
    finally:
        task.cancel()


def _canonical(route: object) -> str:
    """`/v1/embeddings/?x=1` and `embeddings` both are `/embeddings`."""
    if not isinstance(route, str):
        raise InvalidRequest("openai_route must be a string", "openai_route")
    path = "/" + route.partition("?")[0].strip("/")
    return path.removeprefix("/v1") or "/"


def _choose_model(name: str | None, models: Sequence[Model]) -> Model:
    if name is None:
        return models[0]
    for model in models:
        if model.name == name:
            return model
    served = ", ".join(model.name for model in models)
    raise ModelNotFound(f"model: this name is not served; served are: {served}", "model")


def _check_modalities(request: EmbeddingRequest, model: Model) -> None:
    if all(map(model.takes, {item.modality for item in request.items})):
        return
    for position, item in enumerate(request.items):
        if not model.takes(item.modality):
            param = f"{request.field}[{position}]"
            raise InvalidRequest(
                f"{param}: the model {model.name} does not embed {item.modality}s; its "
                f"capabilities are: {', '.join(sorted(model.capabilities))}",
                param,
            )


async def _all_or_none(calls: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """Await calls side by side; the first failure cancels the others."""
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
