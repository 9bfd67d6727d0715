import numpy as np
import pytest

from fakes.fake_engine import FakeEngine, embedding_of, encode
from infinity_worker.batching import Batcher
from infinity_worker.cache import EmbeddingCache
from infinity_worker.infinity_client import InfinityBadResponse, InfinityClient


@pytest.fixture
def batcher(client: InfinityClient) -> Batcher:
    return Batcher(client)


async def test_only_unknown_texts_are_sent(engine: FakeEngine, batcher: Batcher) -> None:
    cache = EmbeddingCache(100_000)
    assert (await cache.embed(batcher, "fake-text", ["a", "b"]))[1] == 0
    batch, hits = await cache.embed(batcher, "fake-text", ["b", "c", "a"])
    assert hits == 2
    assert [request["input"] for request in engine.requests] == [["a", "b"], ["c"]]
    assert list(batch.encoded) == [encode(embedding_of(text)) for text in "bca"]
    assert np.array_equal(batch.vectors, [embedding_of(text) for text in "bca"])


async def test_a_text_given_twice_is_right_twice(batcher: Batcher) -> None:
    batch, _ = await EmbeddingCache(100_000).embed(batcher, "fake-text", ["a", "b", "a"])
    assert np.array_equal(batch.vectors, [embedding_of(text) for text in "aba"])


async def test_models_do_not_share(engine: FakeEngine, batcher: Batcher) -> None:
    cache = EmbeddingCache(100_000)
    await cache.embed(batcher, "fake-text", ["a"])
    await cache.embed(batcher, "fake-clip", ["a"])
    assert [request["model"] for request in engine.requests] == ["fake-text", "fake-clip"]


async def test_the_longest_unused_goes_first(batcher: Batcher) -> None:
    cache = EmbeddingCache(3 * (256 + 32))  # three embeddings of 8 numbers
    await cache.embed(batcher, "fake-text", ["a", "b", "c"])
    await cache.embed(batcher, "fake-text", ["a"])
    await cache.embed(batcher, "fake-text", ["d"])
    assert len(cache) == 3
    assert (await cache.embed(batcher, "fake-text", ["a"]))[1] == 1
    assert (await cache.embed(batcher, "fake-text", ["b"]))[1] == 0


async def test_a_cache_smaller_than_a_job_still_answers_it(batcher: Batcher) -> None:
    texts = [f"t{number}" for number in range(50)]
    batch, _ = await EmbeddingCache(300).embed(batcher, "fake-text", texts)
    assert np.array_equal(batch.vectors, [embedding_of(text) for text in texts])


async def test_without_memory_nothing_is_kept(engine: FakeEngine, batcher: Batcher) -> None:
    cache = EmbeddingCache(0)
    for _ in range(2):
        assert (await cache.embed(batcher, "fake-text", ["a"]))[1] == 0
    assert len(engine.requests) == 2


async def test_a_failing_item_is_named_as_the_caller_counts(
    engine: FakeEngine, batcher: Batcher
) -> None:
    cache = EmbeddingCache(100_000)
    await cache.embed(batcher, "fake-text", ["a"])
    engine.mode = "nan"
    with pytest.raises(InfinityBadResponse) as caught:
        await cache.embed(batcher, "fake-text", ["b", "a", "c"])
    assert caught.value.item == 2
    assert len(cache) == 1
