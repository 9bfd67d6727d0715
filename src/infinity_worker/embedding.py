"""Embeds the items of a request: split by modality, side by side, in the caller's order."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from infinity_worker.errors import InvalidRequest, RequestError
from infinity_worker.infinity_client import (
    EmbeddingBatch,
    InfinityBadResponse,
    InfinityError,
    InfinityRejected,
)
from infinity_worker.logs import JobRecord
from infinity_worker.parts import Part, PartAnswer, check_count, merge, split, unfit
from infinity_worker.prompts import prefix
from infinity_worker.response import embedding_response
from infinity_worker.schema import EmbeddingRequest
from infinity_worker.tokens import TokenCounter
from infinity_worker.turns import SMALL_ITEMS
from infinity_worker.utils import JsonObject
from infinity_worker.worker import Worker

T = TypeVar("T")
U = TypeVar("U")

# Images of one job that are fetched, decoded or embedded at a time: a job of thousands must not
# keep the others' waiting.
IMAGES_AT_ONCE = 32


async def embed(request: EmbeddingRequest, worker: Worker, record: JobRecord) -> JsonObject:
    """Embed a request's items: split by modality, side by side, answered in the caller's order.

    Raises:
        RequestError: the caller's fault.
        InfinityError: the engine could not answer.
    """
    check_count(request, worker.max_items)
    model = await worker.catalogue.choose(request.model, "embed")
    request = _prefixed(request, prefix(worker.catalogue.prompts(model), *request.prompting))
    request = request.without(unfit(request, model, await worker.client.models()))
    if not request.cuts:
        request = request.without(await _too_long(request, worker.counters.get(model.name)))
    record.model, record.encoding = model.name, request.encoding_format
    asked_at = time.perf_counter()
    answers = await _all_or_none(
        [
            _embed_texts(part, model.name, request, worker)
            if part.modality == "text"
            else _embed_images(part, model.name, request, worker)
            for part in split(request.items, request.positions)
        ]
    )
    record.engine_s = time.perf_counter() - asked_at
    embeddings = merge(answers, request.failures)
    record.cached = sum(answer.cached for answer in answers)
    record.images = embeddings.images
    record.texts = len(embeddings.encoded) - embeddings.images
    record.failed = len(embeddings.failures)
    record.tokens = embeddings.text_tokens
    return embedding_response(request, model.name, embeddings)


async def _embed_texts(
    part: Part, model: str, request: EmbeddingRequest, worker: Worker
) -> PartAnswer:
    """Embed texts; the engine works while their tokens are counted."""
    counter = worker.counters.get(model)
    texts = part.contents
    hits = 0
    try:
        if counter is None:
            batch = await worker.batcher.embed(model, texts, "text", together=False)
            tokens = batch.prompt_tokens
        elif len(texts) > SMALL_ITEMS and not worker.cache.keeps and counter.may_ask_engine(texts):
            # Counting thousands of texts costs more than sharing their requests would bring.
            batch = await worker.batcher.embed(model, texts, "text", together=True, alone=True)
            tokens = counter.from_engine(batch.prompt_tokens, len(texts))
        else:
            (batch, hits), tokens = await _both(
                worker.cache.embed(worker.batcher, model, texts), counter.count(texts)
            )
    except InfinityError as error:
        if error.item is not None:
            error.param = request.param(part.positions[error.item])
        raise
    return PartAnswer("text", part.positions, batch, tokens, hits)


async def _embed_images(
    part: Part, model: str, request: EmbeddingRequest, worker: Worker
) -> PartAnswer:
    """Embed images, each as soon as it is verified; the same one twice is embedded once."""
    first: dict[str, int] = {}
    for position, source in zip(part.positions, part.contents, strict=True):
        first.setdefault(source, position)
    found: dict[str, EmbeddingBatch | RequestError] = {}
    todo = iter(first)

    async def embed_some() -> None:
        for source in todo:
            try:
                found[source] = await _embed_image(source, model, worker)
            except RequestError as error:
                if request.on_error == "fail":
                    raise _named(error, request.param(first[source])) from None
                found[source] = error
            except InfinityError as error:
                error.param = request.param(first[source])
                raise

    await _all_or_none([embed_some() for _ in range(min(IMAGES_AT_ONCE, len(first)))])
    good: list[int] = []
    batches: list[EmbeddingBatch] = []
    failures: dict[int, RequestError] = {}
    for position, source in zip(part.positions, part.contents, strict=True):
        outcome = found[source]
        if isinstance(outcome, RequestError):
            failures[position] = _named(outcome, request.param(position))
        else:
            good.append(position)
            batches.append(outcome)
    return PartAnswer("image", good, _joined(batches), failures=failures)


async def _embed_image(source: str, model: str, worker: Worker) -> EmbeddingBatch:
    async with worker.images.read(source) as image:
        try:
            return await worker.batcher.embed_image(model, image.uri, image.pixels)
        except InfinityRejected as error:
            raise InvalidRequest(str(error)) from None


def _named(error: RequestError, param: str) -> RequestError:
    return type(error)(f"{param}: {error}", param)


def _joined(batches: Sequence[EmbeddingBatch]) -> EmbeddingBatch:
    """The embeddings of single items as one batch.

    Raises:
        InfinityBadResponse: they differ in their dimensions.
    """
    if not batches:
        return EmbeddingBatch((), np.empty((0, 0), np.float32), 0)
    if len({batch.vectors.shape[1] for batch in batches}) > 1:
        raise InfinityBadResponse("the engine's embeddings differ in their dimensions")
    encoded = [text for batch in batches for text in batch.encoded]
    return EmbeddingBatch(encoded, np.concatenate([batch.vectors for batch in batches]), 0)


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


def _prefixed(request: EmbeddingRequest, put_before: str) -> EmbeddingRequest:
    """The request with something before each of its texts."""
    if not put_before:
        return request
    items = tuple(
        item if item.modality != "text" else item._replace(content=put_before + item.content)
        for item in request.items
    )
    return replace(request, items=items)


async def _too_long(
    request: EmbeddingRequest, counter: TokenCounter | None
) -> Mapping[int, RequestError]:
    """The texts that the model would cut, for a caller who wants none cut."""
    if counter is None:
        raise InvalidRequest(
            "truncate: whether a text is too long cannot be told for this model: leave it out",
            "truncate",
        )
    texts = [
        (at, item.content)
        for at, item in zip(request.positions, request.items, strict=True)
        if item.modality == "text"
    ]
    cut = await counter.cut([text for _, text in texts])
    return {
        (at := texts[place][0]): InvalidRequest(
            f"{request.param(at)}: the text has more than the {counter.max_tokens} tokens that "
            "the model reads: split it, or allow truncation",
            request.param(at),
        )
        for place in cut
    }


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
