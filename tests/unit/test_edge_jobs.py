"""The edge's queue: who gets which job, when, and what becomes of it."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.edge.envelope import envelope, openai_answer
from infinity_worker.edge.job import Job, JobStatus
from infinity_worker.edge.jobs import JobQueue
from infinity_worker.edge.workers import Workers, worker_environment

LONG_S = 30.0
"""Longer than any wait here takes: one that is not woken fails its test."""


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


async def one_pass() -> None:
    """Lets every task that can run do so, up to its next wait."""
    await asyncio.sleep(0)


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.mark.parametrize(("sync", "form"), [(False, f"{UUID}-u1"), (True, f"sync-{UUID}-u1")])
async def test_ids_have_the_platforms_form(*, sync: bool, form: str) -> None:
    assert re.fullmatch(form, JobQueue().submit({}, sync=sync).id)


async def test_jobs_are_taken_in_the_order_of_their_submission() -> None:
    queue = JobQueue()
    jobs = [queue.submit(n, sync=False) for n in range(5)]
    assert await queue.take("a", 1) == jobs[:1]
    assert await queue.take("b", 3) == jobs[1:4]
    assert await queue.take("a", 3) == jobs[4:]
    assert await queue.take("a", 3) == []


async def test_a_waiting_taker_is_woken_by_the_submission() -> None:
    queue = JobQueue()
    taking = asyncio.create_task(queue.take("a", 8, LONG_S))
    await one_pass()
    job = queue.submit({}, sync=False)
    assert (job.status, job.worker_id) == (JobStatus.IN_PROGRESS, "a")
    assert await taking == [job]


async def test_who_has_waited_longest_is_served_first() -> None:
    queue = JobQueue()
    takers = [asyncio.create_task(queue.take(name, 1, LONG_S)) for name in "abc"]
    await one_pass()
    jobs = [queue.submit(n, sync=False) for n in range(3)]
    assert await asyncio.gather(*takers) == [[job] for job in jobs]
    assert [job.worker_id for job in jobs] == ["a", "b", "c"]


async def test_a_poll_that_ran_out_gets_nothing_more() -> None:
    queue = JobQueue()
    assert await queue.take("a", 1, 0.0) == []
    assert queue.submit({}, sync=False).status is JobStatus.IN_QUEUE


async def test_a_taker_cancelled_with_a_job_in_hand_leaves_it_to_the_next_one() -> None:
    queue = JobQueue()
    leaving = asyncio.create_task(queue.take("a", 1, LONG_S))
    await one_pass()
    first = queue.submit(1, sync=False)
    second = queue.submit(2, sync=False)
    staying = asyncio.create_task(queue.take("b", 1, LONG_S))
    leaving.cancel()
    assert await staying == [second]
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert first.status is JobStatus.IN_QUEUE
    assert first.worker_id is None
    assert await queue.take("c", 9) == [first]


async def test_what_is_given_back_has_its_old_place() -> None:
    queue = JobQueue()
    jobs = [queue.submit(n, sync=False) for n in range(4)]
    one, two = await queue.take("a", 2), await queue.take("b", 1)
    queue.give_back("a", one)
    queue.give_back("b", two)
    assert await queue.take("c", 9) == jobs


async def test_what_is_given_back_wakes_a_waiting_taker() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    taken = await queue.take("a")
    waiting = asyncio.create_task(queue.take("b", 1, LONG_S))
    await one_pass()
    queue.give_back("a", taken)
    assert await waiting == [job]


async def test_a_cancelled_job_is_not_given_back() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    taken = await queue.take("a")
    queue.cancel(job.id)
    queue.give_back("a", taken)
    assert await queue.take("b") == []


REPORTS: list[tuple[Any, Any, JobStatus]] = [
    ({"x": 1}, None, JobStatus.COMPLETED),
    (None, None, JobStatus.COMPLETED),
    ([], "", JobStatus.COMPLETED),
    (None, "it broke", JobStatus.FAILED),
    ({"x": 1}, {"code": 400}, JobStatus.FAILED),
]


@pytest.mark.parametrize(("output", "error", "status"), REPORTS)
async def test_a_report_ends_the_job(output: Any, error: Any, status: JobStatus) -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=True)
    await queue.take("a")
    assert queue.finish("a", job.id, output, error)
    assert job.status is status
    assert job.error == (error or None)
    assert job.output == (output if status is JobStatus.COMPLETED else None)
    assert await queue.wait(job, 0)


async def test_only_the_first_report_of_the_jobs_own_worker_counts() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    assert not queue.finish("a", job.id, "before it was taken")
    await queue.take("a")
    assert not queue.finish("b", job.id, "another worker's")
    assert not queue.finish("a", "no-such-job", "x")
    assert queue.finish("a", job.id, "first")
    assert not queue.finish("a", job.id, "second")
    assert not queue.progress("a", job.id, "late")
    assert job.output == "first"


async def test_progress_is_told_until_the_result_replaces_it() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    await queue.take("a")
    assert queue.progress("a", job.id, "half")
    assert (envelope(job)["status"], envelope(job)["output"]) == ("IN_PROGRESS", "half")
    assert queue.finish("a", job.id, error="it broke")
    assert "output" not in envelope(job)


async def test_cancelling_in_the_queue_tells_nobody() -> None:
    queue = JobQueue()
    first, second = (queue.submit(n, sync=False) for n in range(2))
    assert queue.cancel(first.id) is first
    assert first.status is JobStatus.CANCELLED
    assert await queue.take("a", 9) == [second]
    assert await queue.stops.collect("a") == []


async def test_cancelling_in_progress_signals_the_worker_once() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    await queue.take("a")
    told = asyncio.create_task(queue.stops.collect("a", LONG_S))
    await one_pass()
    queue.cancel(job.id)
    assert await told == [job.id]
    assert await queue.stops.collect("a") == []
    assert not queue.finish("a", job.id, "too late")
    assert job.status is JobStatus.CANCELLED


async def test_a_cancelled_stop_poll_loses_no_signal() -> None:
    queue = JobQueue()
    polling = asyncio.create_task(queue.stops.collect("a", LONG_S))
    await one_pass()
    queue.stops.leave("a", ["x"])
    polling.cancel()
    queue.stops.leave("a", ["y"])
    with pytest.raises(asyncio.CancelledError):
        await polling
    assert await queue.stops.collect("a") == ["x", "y"]


async def test_cancelling_what_is_over_or_unknown_changes_nothing() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    await queue.take("a")
    queue.finish("a", job.id, "done")
    assert queue.cancel(job.id) is job
    assert job.status is JobStatus.COMPLETED
    assert queue.cancel("no-such-job") is None


async def test_a_wait_ends_with_the_job_or_the_time() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=True)
    assert not await queue.wait(job, 0)
    waiting = asyncio.create_task(queue.wait(job, LONG_S))
    await one_pass()
    queue.cancel(job.id)
    assert await waiting


@pytest.mark.parametrize(("sync", "kept_s"), [(False, 1800), (True, 60)])
async def test_a_finished_job_expires(*, sync: bool, kept_s: float) -> None:
    clock = Clock()
    queue = JobQueue(clock=clock)
    job, unfinished = queue.submit(1, sync=sync), queue.submit(2, sync=sync)
    await queue.take("a", 2)
    queue.finish("a", job.id, "done")
    clock.now += kept_s - 1
    assert queue.get(job.id) is job
    clock.now += 1
    assert queue.get(job.id) is None
    assert queue.get(unfinished.id) is unfinished
    assert queue.counts()["completed"] == 1


async def test_the_envelope_grows_with_the_job() -> None:
    clock = Clock()
    queue = JobQueue(clock=clock)
    job = queue.submit({}, sync=True)
    told: dict[str, Any] = {"id": job.id, "status": "IN_QUEUE"}
    assert envelope(job) == told
    clock.now += 0.25
    await queue.take("a")
    told |= {"status": "IN_PROGRESS", "delayTime": 250, "workerId": "a"}
    assert envelope(job) == told
    clock.now += 1.5
    queue.finish("a", job.id, [0])
    assert envelope(job) == told | {"status": "COMPLETED", "executionTime": 1500, "output": [0]}


OUTPUTS = [([{"a": 1}], {"a": 1}), ([], []), ([1, 2], [1, 2]), ({"a": 1}, {"a": 1}), (None, None)]


@pytest.mark.parametrize(("output", "answer"), OUTPUTS)
async def test_a_list_of_one_is_unwrapped_for_openai(output: Any, answer: Any) -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=True)
    await queue.take("a")
    queue.finish("a", job.id, output)
    assert openai_answer(job) == (200, answer)


FAILURES: list[tuple[Any, dict[str, Any]]] = [
    ("it broke", {"message": "it broke"}),
    ('{"message": "m", "code": 429}', {"message": "m", "code": 429}),
    ("[1]", {"message": "[1]"}),
    ({"message": "m"}, {"message": "m"}),
    (7, {"message": "7"}),
]


@pytest.mark.parametrize(("error", "told"), FAILURES)
async def test_a_failure_becomes_an_error_object_for_openai(error: Any, told: Any) -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=True)
    await queue.take("a")
    queue.finish("a", job.id, error=error)
    assert openai_answer(job) == (500, {"error": told})


async def test_a_cancelled_job_is_an_error_for_openai() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=True)
    queue.cancel(job.id)
    status, body = openai_answer(job)
    assert (status, body["error"]["message"]) == (500, "The job ended as CANCELLED.")


def test_a_worker_counts_while_it_is_heard_of() -> None:
    clock = Clock()
    workers = Workers(clock=clock)
    workers.seen("a")
    clock.now += 29
    workers.seen("b")
    idle_and_running = {"idle": 1, "initializing": 0, "ready": 2, "running": 1}
    idle_and_running |= {"throttled": 0, "unhealthy": 0}
    assert workers.counts("b".__eq__) == idle_and_running
    clock.now += 1
    assert workers.counts("b".__eq__) == idle_and_running | {"idle": 0, "ready": 1}


def test_the_urls_given_to_a_worker_suit_the_sdk() -> None:
    told = worker_environment("http://h:1/", "ep", "w1")
    urls = [value for value in told.values() if value.startswith("http")]
    assert len(urls) == 4
    assert all(url.startswith("http://h:1/v2/ep/") and "?" in url for url in urls)
    assert (told["RUNPOD_POD_ID"], told["RUNPOD_ENDPOINT_ID"]) == ("w1", "ep")
    assert all(name.startswith("RUNPOD_") for name in told)


# What a caller can do: its name, and a number that chooses a job or how many.
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("submit", "take", "poll", "leave", "finish", "cancel", "give_back"),
                *("abandon", "fail", "retry", "purge"),
            ]
        ),
        st.integers(0, 5),
    ),
    max_size=40,
)


@dataclass
class World:
    """A queue in use, next to what must be true of it."""

    queue: JobQueue = field(default_factory=lambda: JobQueue(max_attempts=1000))
    submitted: list[Job] = field(default_factory=list)
    in_hand: list[Job] = field(default_factory=list)
    over: list[Job] = field(default_factory=list)
    polls: list[asyncio.Task[list[Job]]] = field(default_factory=list)

    @property
    def in_line(self) -> list[Job]:
        gone = {*self.in_hand, *self.over}
        return [job for job in self.submitted if job not in gone]

    async def do(self, operation: str, number: int) -> None:
        await getattr(self, operation)(number)
        for poll in [poll for poll in self.polls if poll.done()]:
            self.polls.remove(poll)
            jobs = await poll
            assert jobs == self.in_line[: len(jobs)]
            self.in_hand += jobs

    async def submit(self, _number: int) -> None:
        self.submitted.append(self.queue.submit(len(self.submitted), sync=False))
        await one_pass()
        await one_pass()

    async def take(self, number: int) -> None:
        if not self.polls:
            expected = self.in_line[: number + 1]
            jobs = await self.queue.take("w", number + 1)
            assert jobs == expected
            self.in_hand += jobs

    async def poll(self, number: int) -> None:
        self.polls.append(asyncio.create_task(self.queue.take("w", number + 1, LONG_S)))
        await one_pass()

    async def leave(self, number: int) -> None:
        """A taker goes away in the very moment in which a job is assigned to it."""
        if not self.polls:
            return
        leaving = self.polls.pop(0)
        if number % 2:
            self.submitted.append(self.queue.submit(len(self.submitted), sync=False))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert leaving.cancelled()
        await one_pass()
        await one_pass()

    async def finish(self, number: int) -> None:
        if self.in_hand:
            job = self.in_hand.pop(number % len(self.in_hand))
            assert self.queue.finish("w", job.id, number)
            assert not self.queue.finish("w", job.id, number)
            self.over.append(job)

    async def cancel(self, number: int) -> None:
        if self.submitted:
            job = self.submitted[number % len(self.submitted)]
            assert self.queue.cancel(job.id) is job
            if job in self.in_hand:
                self.in_hand.remove(job)
            if job not in self.over:
                self.over.append(job)

    async def give_back(self, number: int) -> None:
        if self.in_hand:
            job = self.in_hand.pop(number % len(self.in_hand))
            self.queue.give_back("w", [job])
            await one_pass()
            await one_pass()

    async def abandon(self, _number: int) -> None:
        """The worker dies: its polls end with nothing, its jobs are in the line again."""
        self.in_hand.clear()
        self.queue.abandon("w")
        await one_pass()
        await one_pass()

    async def fail(self, number: int) -> None:
        if self.in_hand:
            job = self.in_hand.pop(number % len(self.in_hand))
            assert self.queue.finish("w", job.id, error="it broke")
            self.over.append(job)

    async def retry(self, number: int) -> None:
        if self.over:
            job = self.over[number % len(self.over)]
            failed = job.status is JobStatus.FAILED
            if failed:
                self.over.remove(job)
                self.submitted.remove(job)
                self.submitted.append(job)
            assert self.queue.retry(job) == failed
            await one_pass()
            await one_pass()

    async def purge(self, _number: int) -> None:
        dropped = self.in_line
        self.submitted = [job for job in self.submitted if job not in dropped]
        assert self.queue.purge() == len(dropped)


@contextmanager
def cleaned_up(world: World) -> Iterator[None]:
    try:
        yield
    finally:
        for poll in world.polls:
            poll.cancel()


async def play(operations: list[tuple[str, int]]) -> None:
    world = World()
    with cleaned_up(world):
        for operation, number in operations:
            await world.do(operation, number)
        counts = world.queue.counts()
        assert counts["inQueue"] == len(world.in_line)
        assert counts["inProgress"] == len(world.in_hand)
        left = await world.queue.take("w", len(world.submitted) + 1)
        assert ids(left) == ids(world.in_line)


@given(OPERATIONS)
def test_nothing_is_lost_doubled_or_out_of_order(operations: list[tuple[str, int]]) -> None:
    asyncio.run(play(operations))


async def test_an_input_written_once_is_handed_on_as_it_is() -> None:
    queue = JobQueue()
    job = queue.submit(orjson.Fragment(b'{"a":1}'), sync=False)
    assert orjson.dumps({"input": job.input}) == b'{"input":{"a":1}}'
