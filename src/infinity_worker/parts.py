"""A request's items by modality, and its answer put together again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infinity_worker.infinity_client import (
    MAX_TEXT_CHARS,
    EmbeddingBatch,
    InfinityBadResponse,
)
from infinity_worker.schema import EmbeddingRequest, Item, RequestTooLarge
from infinity_worker.utils import Modality

_MODALITIES: tuple[Modality, ...] = ("text", "image")


@dataclass(frozen=True, slots=True)
class Part:
    """A request's items of one modality.

    Attributes:
        modality: what all of them are.
        positions: where each stands in the caller's list.
        contents: the items themselves.
    """

    modality: Modality
    positions: Sequence[int]
    contents: Sequence[str]


def split(items: Sequence[Item]) -> list[Part]:
    """Split items by modality."""
    first = items[0].modality
    if all(item.modality == first for item in items):
        return [Part(first, range(len(items)), [item.content for item in items])]
    parts: list[Part] = []
    for modality in _MODALITIES:
        positions = [at for at, item in enumerate(items) if item.modality == modality]
        parts.append(Part(modality, positions, [items[at].content for at in positions]))
    return parts


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The embeddings of one request, in the caller's order.

    Attributes:
        encoded: each as base64 of little-endian float32, as the engine sent it.
        vectors: the same numbers, float32 of shape (items, dimensions), all finite.
        text_tokens: tokens of the texts.
        images: how many of the items are images.
    """

    encoded: Sequence[str]
    vectors: NDArray[np.float32]
    text_tokens: int
    images: int


def merge(parts: Sequence[Part], batches: Sequence[EmbeddingBatch], text_tokens: int) -> Embeddings:
    """Put the answers for the parts of a request back into the caller's order.

    Raises:
        InfinityBadResponse: the answers differ in their dimensions.
    """
    images = sum(len(part.positions) for part in parts if part.modality == "image")
    if len(batches) == 1:
        return Embeddings(batches[0].encoded, batches[0].vectors, text_tokens, images)

    if len({batch.vectors.shape[1] for batch in batches}) > 1:
        raise InfinityBadResponse("the engine's embeddings differ in their dimensions")
    positions = np.concatenate([part.positions for part in parts])
    order = np.argsort(positions)
    encoded = [text for batch in batches for text in batch.encoded]
    return Embeddings(
        [encoded[at] for at in order],
        np.concatenate([batch.vectors for batch in batches])[order],
        text_tokens,
        images,
    )


def check_sizes(request: EmbeddingRequest, max_items: int) -> None:
    """Refuse what the engine could not take in however it is split.

    Raises:
        RequestTooLarge: names the item, its size and the limit.
    """
    if len(request.items) > max_items:
        raise RequestTooLarge(
            f"{request.field}: {len(request.items):,} items, at most {max_items:,} are accepted: "
            "send several requests",
            request.field,
        )
    for position, item in enumerate(request.items):
        if item.modality == "text" and len(item.content) > MAX_TEXT_CHARS:
            param = f"{request.field}[{position}]"
            raise RequestTooLarge(
                f"{param}: {len(item.content):,} characters, at most {MAX_TEXT_CHARS:,} are "
                "accepted: split the text",
                param,
            )
