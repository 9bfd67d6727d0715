"""Embeds the items of a request: split by modality, side by side, in the caller's order."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from infinity_worker.infinity_client import EmbeddingBatch, InfinityError, Model
from infinity_worker.logs import JobRecord
from infinity_worker.parts import Part, check_sizes, merge, split
from infinity_worker.response import embedding_response
from infinity_worker.schema import EmbeddingRequest, InvalidRequest, ModelNotFound
from infinity_worker.turns import SMALL_ITEMS
from infinity_worker.utils import JsonObject
from infinity_worker.worker import Worker

T = TypeVar("T")
U = TypeVar("U")


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
