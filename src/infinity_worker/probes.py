"""Tiny embeddings that show whether an engine works: `/health` says so even of one that hangs."""

import asyncio
import logging
from collections.abc import Sequence

from infinity_worker.infinity_client import (
    InfinityBadResponse,
    InfinityClient,
    InfinityError,
    InfinityOverloaded,
    InfinityRejected,
    InfinityTimeout,
    InfinityUnavailable,
    Model,
)
from infinity_worker.scoring_api import Classifier, Ranker

log = logging.getLogger(__name__)

_PROBE_TEXTS = ["ready?"]

# A grey RGB picture of 8 × 8 pixels.
_PROBE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNs"
    "aGhgwAaYGHCAwSkBADAXAZDUexXGAAAAAElFTkSuQmCC"
)


async def probe(client: InfinityClient, model: Model, timeout_s: float | None = None) -> None:
    """Have a model do the least that it can: embed, rank or classify one short text, or an image.

    Args:
        client: the engine's.
        model: one that it serves; one that can do none of these is not asked.
        timeout_s: the deadline; None for the client's own.

    Raises:
        InfinityError: the model does not do it.
    """
    if model.takes("text"):
        await client.get_embeddings(model.name, _PROBE_TEXTS, "text", timeout_s=timeout_s)
    elif model.takes("image"):
        await client.get_embeddings(model.name, [_PROBE_IMAGE], "image", timeout_s=timeout_s)
    elif model.can("rerank"):
        ranker = Ranker(client, _PROBE_TEXTS[0], raw_scores=False)
        await ranker.get_embeddings(model.name, _PROBE_TEXTS, timeout_s=timeout_s)
    elif model.can("classify"):
        classifier = Classifier(client, raw_scores=False)
        await classifier.get_embeddings(model.name, _PROBE_TEXTS, timeout_s=timeout_s)


async def wait_until_listening(client: InfinityClient, *, poll_s: float = 0.1) -> Sequence[Model]:
    """Wait until the engine listens, which it does once its models are loaded.

    Raises:
        InfinityError: something listens that is no Infinity server.
    """
    while True:
        try:
            return await client.models()
        except (InfinityUnavailable, InfinityTimeout):
            await asyncio.sleep(poll_s)


async def is_embedding(client: InfinityClient, name: str, timeout_s: float) -> bool:
    """Tell whether a model embeds now, as a canary does: with a short deadline.

    An engine that is only too busy for the canary counts as embedding if it answers anything else
    for that model meanwhile, or says that its queue is full.
    """
    answered = client.answers(name)
    try:
        (model,) = [model for model in await client.models() if model.name == name]
        await probe(client, model, timeout_s)
    except (InfinityOverloaded, InfinityRejected):
        return True
    except (InfinityUnavailable, InfinityBadResponse):
        return False
    except InfinityError:
        return client.answers(name) > answered
    return True
