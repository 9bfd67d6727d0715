"""Ranks documents and classifies texts, split over the engine's limits like embeddings."""

import time

import numpy as np

from infinity_worker.errors import InvalidRequest
from infinity_worker.infinity_client import InfinityError, Model
from infinity_worker.logs import JobRecord
from infinity_worker.scoring_api import Classifier, Ranker
from infinity_worker.scoring_schema import ClassifyRequest, RerankRequest
from infinity_worker.utils import JsonObject
from infinity_worker.worker import Worker


async def rerank(request: RerankRequest, worker: Worker, record: JobRecord) -> JsonObject:
    """Rank documents by a query, the best first, in Cohere's and Jina's shape.

    Raises:
        RequestError: the caller's fault.
        InfinityError: the engine could not answer.
    """
    model = await _choose(request.model, "rerank", worker)
    record.model, record.texts = model.name, len(request.documents)
    ranker = Ranker(worker.client, request.query, request.raw_scores)
    sizes = [len(request.query) + len(document) for document in request.documents]
    began = time.perf_counter()
    try:
        batch = await worker.batcher.score(ranker, model.name, request.documents, sizes)
    except InfinityError as error:
        if error.item is not None:
            error.param = f"{request.field}[{error.item}]"
        raise
    record.engine_s = time.perf_counter() - began
    record.tokens = batch.prompt_tokens
    scores = batch.vectors[:, 0]
    # Equal scores stay in the caller's order.
    best = np.argsort(-scores, kind="stable")[: request.top_n]
    results: list[JsonObject] = [{"index": int(at), "relevance_score": scores[at]} for at in best]
    if request.return_documents:
        for result, at in zip(results, best, strict=True):
            result["document"] = request.sent[at]
    return {
        "object": "rerank",
        "results": results,
        "model": model.name,
        "usage": {"prompt_tokens": batch.prompt_tokens, "total_tokens": batch.prompt_tokens},
    }


async def classify(request: ClassifyRequest, worker: Worker, record: JobRecord) -> JsonObject:
    """Score texts for each of a model's labels, the best label first, in Infinity's shape.

    Raises:
        RequestError: the caller's fault.
        InfinityError: the engine could not answer.
    """
    model = await _choose(request.model, "classify", worker)
    record.model, record.texts = model.name, len(request.texts)
    classifier = Classifier(worker.client, request.raw_scores)
    began = time.perf_counter()
    try:
        batch = await worker.batcher.score(classifier, model.name, request.texts)
    except InfinityError as error:
        if error.item is not None:
            error.param = f"{request.field}[{error.item}]"
        raise
    record.engine_s = time.perf_counter() - began
    record.tokens = batch.prompt_tokens
    order = np.argsort(-batch.vectors, axis=1, kind="stable")
    return {
        "object": "classify",
        "data": [
            [{"label": classifier.labels[at], "score": row[at]} for at in best]
            for row, best in zip(batch.vectors, order, strict=True)
        ],
        "model": model.name,
        "usage": {"prompt_tokens": batch.prompt_tokens, "total_tokens": batch.prompt_tokens},
    }


async def _choose(name: str | None, capability: str, worker: Worker) -> Model:
    model = await worker.catalogue.choose(name, capability)
    if not model.can(capability):
        capable = [other.name for other in await worker.client.models() if other.can(capability)]
        raise InvalidRequest(
            f"model: {model.name} cannot {capability}; served models that can: "
            f"{', '.join(capable) or 'none'}",
            "model",
        )
    return model
