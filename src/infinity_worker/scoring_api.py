"""The engine's /rerank and /classify (infinity-emb 0.0.78), in the form of its embeddings.

A request is answered by a matrix with a row for each text, as an embedding request is, so that the
same lines split it, wait for the engine, and try again what is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from infinity_worker.infinity_client import (
    EmbeddingBatch,
    InfinityBadResponse,
    InfinityClient,
)
from infinity_worker.utils import Modality

_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True)
class Ranker:
    """Scores documents against one query.

    Attributes:
        client: the engine's.
        query: what the documents are compared with.
        raw_scores: whether scores are the model's own numbers instead of 0 to 1.
    """

    client: InfinityClient
    query: str
    raw_scores: bool

    async def get_embeddings(
        self,
        model: str,
        inputs: Sequence[str],
        modality: Modality = "text",
        *,
        timeout_s: float | None = None,
    ) -> EmbeddingBatch:
        """One score for each document, float32 of shape (documents, 1).

        Raises:
            InfinityError: the engine could not answer.
        """
        payload = {
            "model": model,
            "query": self.query,
            "documents": inputs,
            "return_documents": False,
            "raw_scores": self.raw_scores,
        }
        timeout_s = timeout_s or self.client.deadline_s(inputs, modality)
        answer = await self.client.ask("/rerank", payload, timeout_s)
        try:
            scores = np.full((len(inputs), 1), np.nan, np.float32)
            for result in answer["results"]:
                scores[result["index"], 0] = result["relevance_score"]
            tokens = int(answer["usage"]["prompt_tokens"])
        except _MALFORMED as error:
            raise InfinityBadResponse("the engine's ranking is malformed") from error
        return EmbeddingBatch([""] * len(inputs), scores, tokens)


@dataclass(slots=True)
class Classifier:
    """Scores texts for each of a model's labels.

    Attributes:
        client: the engine's.
        raw_scores: whether scores are the model's own numbers instead of 0 to 1.
        labels: the columns, once there was an answer.
    """

    client: InfinityClient
    raw_scores: bool
    labels: list[str] = field(default_factory=list)

    async def get_embeddings(
        self,
        model: str,
        inputs: Sequence[str],
        modality: Modality = "text",
        *,
        timeout_s: float | None = None,
    ) -> EmbeddingBatch:
        """A score for each text and label, float32 of shape (texts, labels).

        Raises:
            InfinityError: the engine could not answer.
        """
        payload = {"model": model, "input": inputs, "raw_scores": self.raw_scores}
        timeout_s = timeout_s or self.client.deadline_s(inputs, modality)
        answer = await self.client.ask("/classify", payload, timeout_s)
        try:
            found = [{each["label"]: each["score"] for each in row} for row in answer["data"]]
            self.labels = self.labels or sorted(found[0])
            scores = np.array([[row[label] for label in self.labels] for row in found], np.float32)
            tokens = int(answer["usage"]["prompt_tokens"])
        except _MALFORMED as error:
            raise InfinityBadResponse("the engine's classification is malformed") from error
        if len(scores) != len(inputs):
            raise InfinityBadResponse(f"the engine classified {len(scores)} of {len(inputs)} texts")
        return EmbeddingBatch([""] * len(inputs), scores, tokens)
