"""Sharing engine requests among jobs: the planner alone, and the batcher on an engine in memory."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.fake_engine import embedding_of, encode
from infinity_worker.batching import Batcher
from infinity_worker.infinity_client import (
    MAX_IMAGES_PER_REQUEST,
    MAX_TEXTS_PER_REQUEST,
    EmbeddingBatch,
    InfinityBadResponse,
    InfinityOverloaded,
    InfinityRejected,
)
from infinity_worker.lanes import MAX_CHARS_PER_REQUEST, MAX_SIZE_PER_REQUEST
from infinity_worker.turns import SMALL_ITEMS, Ticket, next_request
from infinity_worker.utils import Modality

POISON = "poison"
CURSE = "curse"


@dataclass
class MemoryEngine:
    """An engine that refuses requests with a poisoned text and answers NaN for cursed ones.

    Attributes:
        full_for: so many requests are refused before one is taken.
        requests: what each request carried.
        gate: requests wait for it.
    """

    full_for: int = 0
    requests: list[list[str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0
    most_under_way: int = 0
    cancelled: int = 0

    async def get_embeddings(
        self,
        model: str,  # noqa: ARG002  # as `Embedder` has it
        inputs: Sequence[str],
        modality: Modality = "text",  # noqa: ARG002  # likewise
    ) -> EmbeddingBatch:
        self.requests.append(list(inputs))
        if self.full_for:
            self.full_for -= 1
            raise InfinityOverloaded("full")
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if POISON in inputs:
            raise InfinityRejected("the engine refused the input (HTTP 422)")
        vectors = np.stack([embedding_of(text) for text in inputs])
        vectors[[text == CURSE for text in inputs]] = np.nan
        tokens = sum(len(text.split()) for text in inputs)
        return EmbeddingBatch([encode(vector) for vector in vectors], vectors, tokens)


def right(batch: EmbeddingBatch, texts: Sequence[str]) -> bool:
    return list(batch.encoded) == [encode(embedding_of(text)) for text in texts] and np.array_equal(
        batch.vectors, [embedding_of(text) for text in texts]
    )


async def embed(batcher: Batcher, texts: Sequence[str], *, together: bool = True) -> EmbeddingBatch:
    return await batcher.embed("m", texts, "text", together=together)


async def test_an_idle_worker_sends_at_once() -> None:
    engine = MemoryEngine()
    job = asyncio.ensure_future(embed(Batcher(engine), ["a"]))
    for _ in range(3):  # turns of the loop, no time
        await asyncio.sleep(0)
    assert engine.requests == [["a"]]
    engine.gate.set()
    assert right(await job, ["a"])


async def test_what_waits_travels_together() -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=1)
    first = asyncio.ensure_future(embed(batcher, ["first"]))
    await asyncio.sleep(0.01)
    others = [asyncio.ensure_future(embed(batcher, [f"t{n}", "x"])) for n in range(20)]
    await asyncio.sleep(0.01)
    engine.gate.set()
    assert right(await first, ["first"])
    for number, job in enumerate(others):
        assert right(await job, [f"t{number}", "x"])
    assert [len(request) for request in engine.requests] == [1, 40]


async def test_crumbs_are_gathered_while_a_request_is_under_way() -> None:
    """The next request leaves once half of those who are around wait for it."""
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=2)
    jobs = [asyncio.ensure_future(embed(batcher, [f"t{n}", "x"])) for n in range(4)]
    await asyncio.sleep(0.01)
    for number in range(7):
        assert len(engine.requests) == 1
        jobs.append(asyncio.ensure_future(embed(batcher, [f"u{number}"])))
        await asyncio.sleep(0.01)
    assert [len(request) for request in engine.requests] == [8, 7]
    engine.gate.set()
    await asyncio.gather(*jobs)


async def test_a_crowd_is_divided_among_the_requests() -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=2)
    jobs = [asyncio.ensure_future(embed(batcher, [f"t{n}"])) for n in range(41)]
    await asyncio.sleep(0.01)
    assert [len(request) for request in engine.requests] == [20, 20]
    engine.gate.set()
    await asyncio.gather(*jobs)


async def test_large_images_leave_once_they_fill_a_request() -> None:
    """Five fit into one: the next five do not wait until half of all who were around are there."""
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=2)
    fifth = MAX_SIZE_PER_REQUEST // 5
    jobs = [
        asyncio.ensure_future(batcher.embed_one("m", "image", f"image {n}", fifth))
        for n in range(17)
    ]
    await asyncio.sleep(0.01)
    assert [len(request) for request in engine.requests] == [5, 5]
    for job in jobs[:5]:
        job.cancel()
    await asyncio.sleep(0.01)
    assert [len(request) for request in engine.requests] == [5, 5, 5]
    engine.gate.set()
    await asyncio.gather(*jobs[5:])


async def test_jobs_that_must_not_share_do_not() -> None:
    engine = MemoryEngine()
    engine.gate.set()
    batcher = Batcher(engine, requests_under_way=1)
    texts = [[f"a{n}", f"b{n}"] for n in range(5)]
    await asyncio.gather(*(embed(batcher, job, together=False) for job in texts))
    assert sorted(engine.requests) == texts


async def test_a_large_job_does_not_hold_up_small_ones() -> None:
    """Each request that carries the small jobs has but a share of the large one."""
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=1)
    large = asyncio.ensure_future(embed(batcher, [f"large {n}" for n in range(2_048)]))
    small = [asyncio.ensure_future(embed(batcher, [f"small {n}"])) for n in range(5)]
    await asyncio.sleep(0.01)
    engine.gate.set()
    await asyncio.gather(*small)
    assert not large.done()
    assert len(engine.requests[0]) < 100
    assert {f"small {n}" for n in range(5)} <= set(engine.requests[0])
    assert len((await large).encoded) == 2_048


async def test_a_poisoned_job_fails_alone() -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=1)
    jobs = [["one"], ["two", POISON], ["three"]]
    running = [asyncio.ensure_future(embed(batcher, job)) for job in jobs]
    await asyncio.sleep(0.01)
    engine.gate.set()
    first, bad, third = await asyncio.gather(*running, return_exceptions=True)
    assert isinstance(first, EmbeddingBatch)
    assert isinstance(third, EmbeddingBatch)
    assert isinstance(bad, InfinityRejected)
    assert len(engine.requests) == 4


async def test_a_nan_fails_its_own_job_and_names_the_item() -> None:
    engine = MemoryEngine()
    engine.gate.set()
    batcher = Batcher(engine)
    good, bad = await asyncio.gather(
        embed(batcher, ["a"]), embed(batcher, ["b", CURSE]), return_exceptions=True
    )
    assert isinstance(good, EmbeddingBatch)
    assert isinstance(bad, InfinityBadResponse)
    assert bad.item == 1


async def test_an_overloaded_engine_is_waited_for_and_not_asked_for_each_job() -> None:
    engine = MemoryEngine(full_for=3)
    engine.gate.set()
    batcher = Batcher(engine)
    texts = [[f"t{n}"] for n in range(5)]
    batches = await asyncio.gather(*(embed(batcher, job) for job in texts))
    assert all(map(right, batches, texts))
    assert [len(request) for request in engine.requests] == [5, 5, 5, 5]


async def test_jobs_beyond_the_workers_room_wait_outside() -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine, most_items=2)
    texts = [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]
    jobs = [asyncio.ensure_future(embed(batcher, job)) for job in texts]
    await asyncio.sleep(0.01)
    assert engine.requests == [["a", "b"]]
    assert isinstance(batcher.late("m"), InfinityOverloaded)
    engine.gate.set()
    assert all(map(right, await asyncio.gather(*jobs), texts))
    assert [sorted(request) for request in engine.requests] == texts


async def test_the_unforeseen_ends_every_wait() -> None:
    engine = MemoryEngine()
    engine.gate.set()
    # Texts that the engine in memory cannot hash: half of a surrogate pair.
    jobs = [embed(Batcher(engine), ["half \ud83d"]) for _ in range(2)]
    async with asyncio.timeout(10):
        failed = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(error, UnicodeEncodeError) for error in failed)


async def test_a_cancelled_jobs_items_are_not_sent() -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=1)
    first = asyncio.ensure_future(embed(batcher, ["first"]))
    await asyncio.sleep(0.01)
    waiting = asyncio.ensure_future(embed(batcher, ["never"]))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait({waiting})
    engine.gate.set()
    await first
    assert engine.requests == [["first"]]


async def test_a_request_that_nobody_waits_for_is_dropped() -> None:
    engine = MemoryEngine()
    job = asyncio.ensure_future(embed(Batcher(engine), ["a"]))
    await asyncio.sleep(0.01)
    job.cancel()
    await asyncio.wait({job})
    await asyncio.sleep(0.01)
    assert engine.cancelled == 1


async def test_a_request_is_kept_while_one_of_its_jobs_waits() -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine)
    jobs = [asyncio.ensure_future(embed(batcher, [text])) for text in ("a", "b")]
    await asyncio.sleep(0.01)
    jobs[0].cancel()
    await asyncio.wait({jobs[0]})
    engine.gate.set()
    assert right(await jobs[1], ["b"])
    assert engine.requests == [["a", "b"]]


async def test_images_keep_to_their_own_limit() -> None:
    engine = MemoryEngine()
    engine.gate.set()
    images = [f"image {n}" for n in range(100)]
    batch = await Batcher(engine).embed("m", images, "image", together=False)
    assert right(batch, images)
    assert max(map(len, engine.requests)) <= MAX_IMAGES_PER_REQUEST


async def test_texts_of_similar_length_share_a_request_of_a_split_job() -> None:
    engine = MemoryEngine()
    engine.gate.set()
    texts = ["x" * (1 + 7 * n % 1_000) for n in range(1_000)]
    assert right(await embed(Batcher(engine, requests_under_way=1), texts), texts)
    lengths = [len(text) for request in engine.requests for text in request]
    assert len(engine.requests) > 1
    assert lengths == sorted(lengths)


JOBS = st.lists(
    st.tuples(
        st.integers(1, 60) | st.integers(1, 3),  # items
        st.integers(0, 3_000),  # characters of each
        st.booleans(),  # alone
        st.booleans(),  # over before its turn
    ),
    max_size=30,
)


@given(
    JOBS,
    st.integers(1, 50),
    st.integers(1, 20_000),
    st.integers(0, 40),
    st.integers(1, 60),
)
async def test_the_planner_loses_and_repeats_nothing(
    jobs: list[tuple[int, int, bool, bool]],
    most_items: int,
    most_size: int,
    large_share: int,
    enough: int,
) -> None:
    tickets = [Ticket(["x" * chars] * items, alone=alone) for items, chars, alone, _ in jobs]
    for ticket, (_, _, _, over) in zip(tickets, jobs, strict=True):
        if over:
            ticket.done.cancel()
    waiting = deque(tickets)
    sent: dict[int, list[int]] = {id(ticket): [] for ticket in tickets}
    while shares := next_request(
        waiting,
        most_items=most_items,
        most_size=most_size,
        large_share=large_share,
        enough=enough,
    ):
        positions = [at for share in shares for at in share.positions]
        chars = sum(len(share.ticket.items[at]) for share in shares for at in share.positions)
        assert 1 <= len(positions) <= most_items
        assert chars <= most_size or len(positions) == 1
        assert len(shares) == 1 or not any(share.ticket.alone for share in shares)
        small = [len(share.positions) for share in shares if share.ticket.is_small_job]
        assert sum(small[:-1]) < enough
        for share in shares:
            sent[id(share.ticket)] += share.positions
    for ticket, (items, _, _, over) in zip(tickets, jobs, strict=True):
        held_back = large_share == 0 and items > SMALL_ITEMS
        expected = [] if over or held_back else list(range(items))
        assert sorted(sent[id(ticket)]) == expected


@given(
    st.lists(
        st.tuples(
            st.integers(1, 70),  # items
            st.sampled_from(["", "", "", POISON, CURSE]),  # what else is in the job
            st.sampled_from(["", "", "", "cancel"]),
            st.integers(0, 2),  # turns of the loop before it arrives
            st.booleans(),  # together
        ),
        min_size=1,
        max_size=25,
    ),
    st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
async def test_every_job_gets_its_own_answer_in_its_order(
    jobs: list[tuple[int, str, str, int, bool]], under_way: int
) -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=under_way)
    texts = [
        [f"job {number} text {n}" for n in range(items)] + ([extra] if extra else [])
        for number, (items, extra, _, _, _) in enumerate(jobs)
    ]
    running = []
    for job, (_, _, _, turns, together) in zip(texts, jobs, strict=True):
        running.append(asyncio.ensure_future(embed(batcher, job, together=together)))
        for _ in range(turns):
            await asyncio.sleep(0)
    for task, (_, _, fate, _, _) in zip(running, jobs, strict=True):
        if fate:
            task.cancel()
    engine.gate.set()
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*running, return_exceptions=True)
    for job, answer, (_, extra, fate, _, _) in zip(texts, answers, jobs, strict=True):
        if fate:
            assert isinstance(answer, asyncio.CancelledError)
        elif extra == POISON:
            assert isinstance(answer, InfinityRejected)
        elif extra == CURSE:
            assert isinstance(answer, InfinityBadResponse)
            assert answer.item == len(job) - 1
        else:
            assert isinstance(answer, EmbeddingBatch)
            assert right(answer, job)
    for request in engine.requests:
        assert len(request) <= MAX_TEXTS_PER_REQUEST
        assert sum(map(len, request)) <= MAX_CHARS_PER_REQUEST
    assert engine.under_way == 0


async def test_long_texts_are_split_by_characters() -> None:
    engine = MemoryEngine()
    engine.gate.set()
    texts = [f"{n:06}" + "x" * 100_000 for n in range(25)]
    assert right(await embed(Batcher(engine), texts), texts)
    assert all(sum(map(len, request)) <= MAX_CHARS_PER_REQUEST for request in engine.requests)


async def test_only_so_many_requests_are_under_way() -> None:
    engine = MemoryEngine()
    batcher = Batcher(engine, requests_under_way=2)
    jobs = []
    for number in range(10):
        jobs.append(asyncio.ensure_future(embed(batcher, [f"t{number}"])))
        await asyncio.sleep(0.001)
    engine.gate.set()
    await asyncio.gather(*jobs)
    assert engine.most_under_way == 2


@pytest.mark.parametrize("items", [1, SMALL_ITEMS, SMALL_ITEMS + 1, 500])
async def test_engine_tokens_of_a_job_alone_are_summed(items: int) -> None:
    engine = MemoryEngine()
    engine.gate.set()
    batch = await embed(Batcher(engine), ["two words"] * items, together=False)
    assert batch.prompt_tokens == 2 * items
