"""The policy, as a table; and jobs through the batcher while the engine crashes in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.fake_engine import embedding_of, encode
from infinity_worker.batching import Batcher
from infinity_worker.infinity_client import (
    EmbeddingBatch,
    InfinityBadResponse,
    InfinityCrashed,
    InfinityError,
    InfinityOverloaded,
    InfinityRejected,
    InfinityTimeout,
    InfinityUnavailable,
)
from infinity_worker.recovery import Finding, Step, needs_a_look, next_step
from infinity_worker.utils import Modality

ANSWERS, CRASHED, SILENT = Finding.ANSWERS, Finding.CRASHED, Finding.SILENT
POISON = "poison"
TRAP = "trap"


@pytest.mark.parametrize(
    ("error", "finding", "jobs", "tries", "step"),
    [
        (InfinityOverloaded, ANSWERS, 1, 0, Step.PAUSE),
        (InfinityOverloaded, ANSWERS, 9, 3, Step.PAUSE),
        (InfinityRejected, ANSWERS, 1, 0, Step.FAIL),
        (InfinityRejected, ANSWERS, 9, 0, Step.APART),
        (InfinityBadResponse, ANSWERS, 1, 0, Step.FAIL),
        (InfinityBadResponse, ANSWERS, 9, 0, Step.APART),
        (InfinityBadResponse, CRASHED, 1, 0, Step.QUARANTINE),
        (InfinityBadResponse, SILENT, 9, 0, Step.FAIL),
        (InfinityTimeout, ANSWERS, 1, 0, Step.FAIL),
        (InfinityTimeout, ANSWERS, 9, 0, Step.APART),
        (InfinityTimeout, CRASHED, 1, 0, Step.QUARANTINE),
        (InfinityTimeout, CRASHED, 9, 1, Step.QUARANTINE),
        (InfinityTimeout, SILENT, 9, 0, Step.FAIL),
        (InfinityUnavailable, ANSWERS, 1, 0, Step.AGAIN),
        (InfinityUnavailable, ANSWERS, 9, 0, Step.AGAIN),
        (InfinityUnavailable, ANSWERS, 9, 1, Step.APART),
        (InfinityUnavailable, ANSWERS, 1, 1, Step.FAIL),
        (InfinityUnavailable, CRASHED, 9, 0, Step.QUARANTINE),
        (InfinityUnavailable, SILENT, 9, 0, Step.FAIL),
    ],
)
def test_the_policy(
    error: type[InfinityError], finding: Finding, jobs: int, tries: int, step: Step
) -> None:
    assert next_step(error("e"), finding, jobs=jobs, tries=tries) is step


@pytest.mark.parametrize("error", [InfinityOverloaded, InfinityRejected])
def test_a_clients_error_has_nobody_look_at_the_engine(error: type[InfinityError]) -> None:
    assert not needs_a_look(error("e"))


@dataclass
class MortalEngine:
    """An engine that ends when it is given a poisoned text, and its watch.

    Attributes:
        traps: so many requests with a trap have it end as well.
        lives: how often it may start again.
        seen: for each text, the lives at whose end it was with the engine.
        beside_suspects: requests that were under way while something was tried again.
    """

    traps: int = 0
    lives: int = 1_000
    life: int = 0
    seen: dict[str, set[int]] = field(default_factory=dict)
    requests: list[list[str]] = field(default_factory=list)
    under_way: list[list[str]] = field(default_factory=list)
    beside_suspects: list[list[str]] = field(default_factory=list)
    _back: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._back.set()

    @property
    def is_ready(self) -> bool:
        return self._back.is_set() and self.life < self.lives

    async def ready(self) -> None:
        await self._back.wait()
        if self.life >= self.lives:
            raise InfinityUnavailable("it will not come back")

    async def diagnose(self, model: str, life: int) -> Finding:  # noqa: ARG002  # as `Watch` has it
        return Finding.CRASHED if life != self.life else Finding.ANSWERS

    async def get_embeddings(
        self,
        model: str,  # noqa: ARG002  # as `Embedder` has it
        inputs: Sequence[str],
        modality: Modality = "text",  # noqa: ARG002  # likewise
    ) -> EmbeddingBatch:
        assert self.is_ready
        if any(text in self.seen for text in inputs):
            self.beside_suspects += self.under_way
        request = list(inputs)
        self.requests.append(request)
        self.under_way.append(request)
        ended = self._ended
        try:
            async with asyncio.timeout(0.002):
                await ended.wait()
        except TimeoutError:
            self._maybe_end(request)
        finally:
            self.under_way.remove(request)
        if ended.is_set():
            raise InfinityUnavailable("gone")
        vectors = np.stack([embedding_of(text) for text in inputs])
        return EmbeddingBatch([encode(vector) for vector in vectors], vectors, 0)

    def _maybe_end(self, request: list[str]) -> None:
        if self.traps and any(text.startswith(TRAP) for text in request):
            self.traps -= 1
        elif not any(text.startswith(POISON) for text in request):
            return
        self.life += 1
        for text in (text for each in self.under_way for text in each):
            self.seen.setdefault(text, set()).add(self.life)
        self._ended.set()
        self._ended = asyncio.Event()
        self._back.clear()
        asyncio.get_running_loop().call_later(0.002, self._back.set)


async def answers(
    engine: MortalEngine, jobs: Sequence[Sequence[str]], *, models: int = 1
) -> list[EmbeddingBatch | BaseException]:
    batcher = Batcher(engine, engine)
    running = [
        batcher.embed(f"m{number % models}", job, "text", together=True)
        for number, job in enumerate(jobs)
    ]
    async with asyncio.timeout(60):
        return await asyncio.gather(*running, return_exceptions=True)


def right(answer: EmbeddingBatch | BaseException, job: Sequence[str]) -> bool:
    return isinstance(answer, EmbeddingBatch) and list(answer.encoded) == [
        encode(embedding_of(text)) for text in job
    ]


async def test_jobs_under_way_at_a_crash_are_answered_by_the_next_engine() -> None:
    engine = MortalEngine(traps=1)
    jobs = [["a"], ["b", TRAP], ["c"]]
    assert all(map(right, await answers(engine, jobs), jobs))
    assert engine.requests == [["a", "b", TRAP, "c"], ["a"], ["b", TRAP], ["c"]]


async def test_only_the_poisonous_job_fails_and_is_not_tried_a_third_time() -> None:
    engine = MortalEngine()
    jobs = [[f"job {n}"] for n in range(20)]
    jobs[7] = ["one", POISON, "three"]
    result = await answers(engine, jobs)
    error = result.pop(7)
    assert isinstance(error, InfinityCrashed)
    assert (error.code, error.type) == (500, "internal_error")
    assert "3 items" in str(error)
    assert POISON not in str(error)
    assert all(map(right, result, jobs[:7] + jobs[8:]))
    assert engine.life == 2


async def test_an_engine_that_will_not_come_back_ends_every_wait() -> None:
    result = await answers(MortalEngine(lives=1), [[POISON], ["a"], ["b"] * 100])
    assert all(isinstance(error, InfinityUnavailable) for error in result)


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.sampled_from(["", "", "", "", POISON, TRAP])),
        min_size=1,
        max_size=15,
    ),
    st.integers(0, 2),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
async def test_every_job_gets_one_answer_and_no_bystander_is_at_two_crashes(
    jobs: list[tuple[int, str]], traps: int, models: int
) -> None:
    engine = MortalEngine(traps=traps)
    texts = [
        [f"job {number} text {n}" for n in range(items)] + ([f"{extra} {number}"] if extra else [])
        for number, (items, extra) in enumerate(jobs)
    ]
    for answer, job in zip(await answers(engine, texts, models=models), texts, strict=True):
        if job[-1].startswith(POISON):
            assert isinstance(answer, InfinityCrashed)
        elif len(job) <= 16 and not job[-1].startswith(TRAP):
            # A larger job travels in parts: it may well be under way at two crashes.
            assert right(answer, job)
        else:
            assert right(answer, job) or isinstance(answer, InfinityCrashed)
    assert engine.beside_suspects == []
