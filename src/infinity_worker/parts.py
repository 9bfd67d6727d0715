"""A request's items by modality, and its answer put together again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infinity_worker.errors import InvalidRequest, RequestError, RequestTooLarge
from infinity_worker.infinity_client import (
    MAX_TEXT_CHARS,
    EmbeddingBatch,
    InfinityBadResponse,
    Model,
)
from infinity_worker.schema import EmbeddingRequest, Item
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


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """What came of a part.

    Attributes:
        modality: the part's.
        positions: of the items that were embedded, in the caller's list.
        batch: their embeddings, in that order.
        tokens: tokens of the texts.
        cached: texts whose embeddings were remembered.
        failures: the other items, by their positions, and what is wrong with each.
    """

    modality: Modality
    positions: Sequence[int]
    batch: EmbeddingBatch
    tokens: int = 0
    cached: int = 0
    failures: Mapping[int, RequestError] = field(default_factory=dict)


def split(items: Sequence[Item], positions: Sequence[int]) -> list[Part]:
    """Split items by modality.

    Args:
        items: any number of them.
        positions: where each stands in the caller's list.
    """
    if not items:
        return []
    first = items[0].modality
    if all(item.modality == first for item in items):
        return [Part(first, positions, [item.content for item in items])]
    parts: list[Part] = []
    for modality in _MODALITIES:
        chosen = [at for at, item in enumerate(items) if item.modality == modality]
        contents = [items[at].content for at in chosen]
        parts.append(Part(modality, [positions[at] for at in chosen], contents))
    return parts


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The embeddings of one request, in the caller's order.

    Attributes:
        encoded: each as base64 of little-endian float32, as the engine sent it.
        vectors: the same numbers, float32 of shape (items, dimensions), all finite.
        text_tokens: tokens of the texts.
        images: how many of the items are images.
        failures: the items that have none, by their positions in the caller's list.
    """

    encoded: Sequence[str]
    vectors: NDArray[np.float32]
    text_tokens: int
    images: int
    failures: Mapping[int, RequestError] = field(default_factory=dict)


def merge(answers: Sequence[PartAnswer], failures: Mapping[int, RequestError]) -> Embeddings:
    """Put the answers for the parts of a request back into the caller's order.

    Args:
        answers: one for each part.
        failures: the items that were in no part.

    Raises:
        InfinityBadResponse: the answers differ in their dimensions.
    """
    failures = dict(failures)
    for answer in answers:
        failures |= answer.failures
    tokens = sum(answer.tokens for answer in answers)
    images = sum(len(answer.positions) for answer in answers if answer.modality == "image")
    full = [answer for answer in answers if answer.positions]
    if len(full) == 1:
        batch = full[0].batch
        return Embeddings(batch.encoded, batch.vectors, tokens, images, failures)
    if not full:
        return Embeddings((), np.empty((0, 0), np.float32), tokens, images, failures)

    if len({answer.batch.vectors.shape[1] for answer in full}) > 1:
        raise InfinityBadResponse("the engine's embeddings differ in their dimensions")
    order = np.argsort(np.concatenate([answer.positions for answer in full]))
    encoded = [text for answer in full for text in answer.batch.encoded]
    return Embeddings(
        [encoded[at] for at in order],
        np.concatenate([answer.batch.vectors for answer in full])[order],
        tokens,
        images,
        failures,
    )


def check_count(request: EmbeddingRequest, max_items: int) -> None:
    """Refuse too many items.

    Raises:
        RequestTooLarge: says how many there are, and the limit.
    """
    if request.count > max_items:
        raise RequestTooLarge(
            f"{request.input_field}: {request.count:,} items, at most {max_items:,} are accepted: "
            "send several requests",
            request.input_field,
        )


def unfit(
    request: EmbeddingRequest, model: Model, models: Sequence[Model]
) -> Mapping[int, RequestError]:
    """The items that the model does not take: texts that are too long, and other modalities.

    Args:
        request: whose items to look at.
        model: the one that is asked for.
        models: all that are served, to name others that would take the item.
    """
    taken = {modality: model.takes(modality) for modality in _MODALITIES}
    # The common case first: lists of thousands of texts pass here.
    if taken["text"] and all(
        item.modality == "text" and len(item.content) <= MAX_TEXT_CHARS for item in request.items
    ):
        return {}
    failures: dict[int, RequestError] = {}
    for position, item in zip(request.positions, request.items, strict=True):
        param = request.param(position)
        if not taken[item.modality]:
            others = [other.name for other in models if other.takes(item.modality)]
            failures[position] = InvalidRequest(
                f"{param}: the model {model.name} does not embed {item.modality}s; served models "
                f"that do: {', '.join(others) or 'none'}",
                param,
            )
        elif item.modality == "text" and len(item.content) > MAX_TEXT_CHARS:
            failures[position] = RequestTooLarge(
                f"{param}: {len(item.content):,} characters, at most {MAX_TEXT_CHARS:,} are "
                "accepted: split the text",
                param,
            )
    return failures
