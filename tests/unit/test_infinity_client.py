import asyncio
from collections.abc import Iterator

import aiohttp
import numpy as np
import pytest

from fakes.fake_engine import FakeEngine, embedding_of, encode
from infinity_worker.infinity_client import (
    InfinityBadResponse,
    InfinityClient,
    InfinityError,
    InfinityOverloaded,
    InfinityRejected,
    InfinityTimeout,
    InfinityUnavailable,
    translate_transport_error,
    wait_for_models,
)


async def test_embeddings_are_exact(client: InfinityClient) -> None:
    batch = await client.get_embeddings("fake-text", ["one two", "three"])
    assert list(batch.encoded) == [encode(embedding_of(text)) for text in ("one two", "three")]
    assert batch.vectors.dtype == np.float32
    assert np.array_equal(batch.vectors, [embedding_of("one two"), embedding_of("three")])
    assert batch.prompt_tokens == 3


async def test_the_engine_is_asked_for_base64(engine: FakeEngine, client: InfinityClient) -> None:
    await client.get_embeddings("fake-clip", ["data:image/png;base64,AAAA"], "image")
    assert engine.requests == [
        {
            "model": "fake-clip",
            "input": ["data:image/png;base64,AAAA"],
            "modality": "image",
            "encoding_format": "base64",
        }
    ]


async def test_models_carry_their_capabilities(client: InfinityClient) -> None:
    text, clip = await client.models()
    assert (text.name, text.takes("text"), text.takes("image")) == ("fake-text", True, False)
    assert (clip.name, clip.takes("text"), clip.takes("image")) == ("fake-clip", True, True)


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("hang", InfinityTimeout),
        ("reset", InfinityUnavailable),
        ("half", InfinityBadResponse),
        ("garbage", InfinityBadResponse),
        ("shapeless", InfinityBadResponse),
        ("short", InfinityBadResponse),
        ("ragged", InfinityBadResponse),
        ("full", InfinityOverloaded),
        ("refuse", InfinityRejected),
        ("fail", InfinityBadResponse),
        ("locked", InfinityBadResponse),
    ],
)
async def test_misbehaviour_becomes_one_error_that_repeats_nothing(
    engine: FakeEngine, mode: str, error: type[InfinityError]
) -> None:
    engine.mode = mode
    async with InfinityClient(engine.url, timeout_s=1.5) as client:
        with pytest.raises(InfinityError) as caught:
            await client.get_embeddings("fake-text", ["a secret", "another secret"])
        assert type(caught.value) is error
        assert "secret" not in str(caught.value)
        engine.mode = "ok"
        assert len((await client.get_embeddings("fake-text", ["again"])).encoded) == 1


async def test_nothing_listening_is_unavailable() -> None:
    async with FakeEngine() as gone:
        url = gone.url
    async with InfinityClient(url) as client:
        with pytest.raises(InfinityUnavailable):
            await client.models()


async def test_readiness_is_an_embedding_of_each_model(engine: FakeEngine) -> None:
    async with InfinityClient(engine.url) as client:
        await wait_for_models(client)
    assert [request["model"] for request in engine.requests] == ["fake-text", "fake-clip"]


async def test_readiness_is_waited_for() -> None:
    async with FakeEngine() as early:
        port = int(early.url.rpartition(":")[2])
    async with InfinityClient(f"http://127.0.0.1:{port}") as client:
        waiting = asyncio.ensure_future(wait_for_models(client, poll_s=0.01))
        async with FakeEngine(port=port):
            assert len(await asyncio.wait_for(waiting, 10)) == 2


async def test_a_key_is_sent(engine: FakeEngine) -> None:
    async with InfinityClient(engine.url, api_key="k") as client:
        await client.get_embeddings("fake-text", ["a"])
    assert engine.headers["Authorization"] == "Bearer k"


def exception_classes(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from exception_classes(child)


@pytest.mark.parametrize("kind", sorted(exception_classes(aiohttp.ClientError), key=str))
def test_every_exception_of_aiohttp_is_translated(kind: type[aiohttp.ClientError]) -> None:
    raised = kind.__new__(kind)  # their constructors differ; only the class is looked at
    assert isinstance(translate_transport_error(raised), InfinityError)
