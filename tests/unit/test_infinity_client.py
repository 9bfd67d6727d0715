import asyncio
from collections.abc import Iterator

import aiohttp
import numpy as np
import pytest

from fakes.fake_engine import MODELS, FakeEngine, embedding_of, encode
from infinity_worker.infinity_client import (
    InfinityBadResponse,
    InfinityClient,
    InfinityError,
    InfinityOverloaded,
    InfinityRejected,
    InfinityTimeout,
    InfinityUnavailable,
    Model,
    deadline_s,
    translate_transport_error,
)
from infinity_worker.probes import is_embedding, probe, wait_until_listening
from infinity_worker.utils import Modality


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
    text, clip, rank, classes, clap = await client.models()
    assert (text.name, text.takes("text"), text.takes("image")) == ("fake-text", True, False)
    assert (clip.name, clip.takes("text"), clip.takes("image")) == ("fake-clip", True, True)
    assert (rank.name, rank.takes("text"), rank.can("rerank")) == ("fake-rank", False, True)
    assert (clap.name, clap.takes("audio"), clap.takes("image")) == ("fake-clap", True, False)
    assert (classes.name, classes.can("classify")) == ("fake-class", True)


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


async def test_a_probe_is_an_embedding_of_what_the_model_takes(
    engine: FakeEngine, client: InfinityClient
) -> None:
    await probe(client, Model("fake-text", frozenset({"embed"})))
    await probe(client, Model("fake-clip", frozenset({"image_embed"})))
    await probe(client, Model("fake-rank", frozenset({"rerank"})))
    await probe(client, Model("fake-class", frozenset({"classify"})))
    await probe(client, Model("fake-text", frozenset({"something else"})))
    asked = [(request["model"], request.get("modality")) for request in engine.requests]
    assert asked == [
        ("fake-text", "text"),
        ("fake-clip", "image"),
        ("fake-rank", None),
        ("fake-class", None),
    ]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("ok", True), ("full", True), ("refuse", True)]
    + [(mode, False) for mode in ("hang", "reset", "half", "garbage", "fail")],
)
@pytest.mark.parametrize("model", ["fake-text", "fake-rank", "fake-class"])
async def test_a_canary_tells_whether_the_engine_embeds(
    engine: FakeEngine, client: InfinityClient, mode: str, expected: object, model: str
) -> None:
    engine.mode = mode
    assert await is_embedding(client, model, 1.5) is expected


async def test_an_engine_that_is_only_busy_embeds(engine: FakeEngine) -> None:
    """The canary is late, but other requests for the model are answered."""
    async with InfinityClient(engine.url) as client:
        await client.models()
        engine.mode = "wait"
        canary = asyncio.ensure_future(is_embedding(client, "fake-text", 2.0))
        await engine.asked.wait()
        other = asyncio.ensure_future(client.get_embeddings("fake-text", ["a"]))
        while engine.waiting < 2:  # noqa: ASYNC110  # a plain attribute of the fake
            await asyncio.sleep(0.01)
        engine.stalled = "ready?"
        engine.mode = "ok"
        await other
        assert await canary


@pytest.mark.parametrize(
    ("inputs", "modality", "seconds"),
    [
        ([""], "text", 10.025),
        (["x" * 1_000] * 32, "text", 14.0),
        (["x" * 488] * 2_048, "text", 161.1424),
        (["x" * 1_000_000] * 32, "image", 42.0),
    ],
)
def test_a_deadline_grows_with_the_request(
    inputs: list[str], modality: Modality, seconds: float
) -> None:
    assert deadline_s(10.0, inputs, modality) == pytest.approx(seconds)


async def test_listening_is_waited_for() -> None:
    async with FakeEngine() as early:
        port = int(early.url.rpartition(":")[2])
    async with InfinityClient(f"http://127.0.0.1:{port}") as client:
        waiting = asyncio.ensure_future(wait_until_listening(client, poll_s=0.01))
        async with FakeEngine(port=port):
            assert len(await asyncio.wait_for(waiting, 10)) == len(MODELS)


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
