"""What becomes of the edge's jobs besides being done: time limits, dead workers, bounds, parts."""

import asyncio

import orjson
import pytest

from infinity_worker.edge.job import Job, JobOptions, JobStatus
from infinity_worker.edge.jobs import JobQueue, QueueFullError

LONG_S = 30.0
"""Longer than any wait here takes: one that is not woken fails its test."""
SHORT = JobOptions(execution_timeout_s=0.01)
BRIEF = JobOptions(ttl_s=0.01)


async def taken(queue: JobQueue, worker_id: str = "a", options: JobOptions = SHORT) -> Job:
    job = queue.submit({}, sync=False, options=options)
    assert await queue.take(worker_id) == [job]
    return job


async def test_a_job_that_runs_too_long_is_timed_out_and_its_worker_told() -> None:
    queue = JobQueue()
    job = await taken(queue)
    assert await queue.wait(job, LONG_S)
    assert job.status is JobStatus.TIMED_OUT
    assert "0.01 s" in job.error
    assert await queue.stops.collect("a") == [job.id]
    assert not queue.finish("a", job.id, "too late")
    assert job.output is None


async def test_the_time_in_the_queue_is_not_execution() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False, options=SHORT)
    await asyncio.sleep(0.03)
    assert job.status is JobStatus.IN_QUEUE


async def test_a_job_done_in_time_stays_done() -> None:
    queue = JobQueue()
    job = await taken(queue, options=JobOptions(0.01, 0.01))
    queue.finish("a", job.id, "done")
    await asyncio.sleep(0.03)
    assert (job.status, queue.get(job.id)) == (JobStatus.COMPLETED, job)


@pytest.mark.parametrize("runs", [False, True])
async def test_a_job_whose_time_to_live_is_over_is_gone(*, runs: bool) -> None:
    queue = JobQueue()
    job = await taken(queue, options=BRIEF) if runs else queue.submit({}, sync=False, options=BRIEF)
    assert await queue.wait(job, LONG_S)
    assert job.gone
    assert queue.get(job.id) is None
    assert await queue.stops.collect("a") == ([job.id] if runs else [])
    assert not queue.finish("a", job.id, "too late")
    assert await queue.take("b") == []
    assert set(queue.counts().values()) == {0}


async def test_the_time_to_live_can_be_set_later() -> None:
    queue = JobQueue()
    job = await taken(queue, options=JobOptions())
    queue.finish("a", job.id, "done")
    queue.set_ttl(job, 0.0)
    await asyncio.sleep(0.01)
    assert queue.get(job.id) is None


async def test_what_failed_can_be_retried_under_its_id() -> None:
    queue = JobQueue()
    failed = await taken(queue)
    queue.finish("a", failed.id, error="it broke")
    other = queue.submit({}, sync=False)
    assert queue.retry(failed)
    assert (failed.status, failed.error, failed.finished.is_set()) == ("IN_QUEUE", None, False)
    assert await queue.take("b", 2) == [other, failed]
    assert queue.finish("b", failed.id, "at last")
    assert (failed.output, queue.counts()["retried"], queue.counts()["failed"]) == ("at last", 1, 0)


async def test_a_job_that_is_retried_is_kept_until_it_has_finished_again() -> None:
    now = 0.0
    queue = JobQueue(clock=lambda: now, keep_s=10.0)
    job = await taken(queue, options=JobOptions())
    queue.finish("a", job.id, error="it broke")
    assert queue.retry(job)
    now = 20.0
    assert queue.get(job.id) is job
    await queue.take("a")
    queue.finish("a", job.id, "at last")
    now = 29.0
    assert queue.get(job.id) is job
    now = 30.0
    assert queue.get(job.id) is None


@pytest.mark.parametrize("end", ["queued", "running", "completed", "cancelled"])
async def test_nothing_else_can_be_retried(end: str) -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    if end != "queued":
        await queue.take("a")
    if end == "completed":
        queue.finish("a", job.id, "done")
    if end == "cancelled":
        queue.cancel(job.id)
    status = job.status
    assert not queue.retry(job)
    assert (job.status, queue.counts()["retried"]) == (status, 0)


async def test_a_timed_out_job_can_be_retried() -> None:
    queue = JobQueue()
    job = await taken(queue)
    await queue.wait(job, LONG_S)
    assert queue.retry(job)
    assert await queue.take("b") == [job]


async def test_purging_drops_what_is_queued_only() -> None:
    queue = JobQueue()
    running = await taken(queue, options=JobOptions())
    queued = [queue.submit(n, sync=True) for n in range(3)]
    queue.cancel(queued[0].id)
    waiting = asyncio.create_task(queue.wait(queued[1], LONG_S))
    assert queue.purge() == 2
    assert await waiting
    assert [queue.get(job.id) for job in queued[1:]] == [None, None]
    assert queue.get(running.id) is running
    assert await queue.take("a", 9) == []


async def test_the_jobs_of_a_dead_worker_go_to_the_next_in_their_old_order() -> None:
    queue = JobQueue()
    jobs = [queue.submit(n, sync=False) for n in range(4)]
    await queue.take("dead", 2)
    other = await queue.take("other", 1)
    queue.abandon("dead")
    assert await queue.take("heir", 9) == [*jobs[:2], *jobs[3:]]
    assert not queue.finish("dead", jobs[0].id, "late")
    assert queue.finish("heir", jobs[0].id, "first")
    assert not queue.finish("dead", jobs[0].id, "late")
    assert (jobs[0].output, other[0].worker_id) == ("first", "other")
    assert queue.counts()["retried"] == 2


async def test_a_dead_workers_open_poll_is_given_nothing_more() -> None:
    queue = JobQueue()
    polling = asyncio.create_task(queue.take("dead", 1, LONG_S))
    stopping = asyncio.create_task(queue.stops.collect("dead", LONG_S))
    await asyncio.sleep(0)
    queue.abandon("dead")
    job = queue.submit({}, sync=False)
    assert (await polling, await stopping) == ([], [])
    assert await queue.take("heir") == [job]


async def test_a_job_of_which_too_many_workers_died_fails() -> None:
    queue = JobQueue(max_attempts=2)
    job = queue.submit({}, sync=False)
    queue.give_back("z", await queue.take("z"))
    for worker in "ab":
        assert await queue.take(worker) == [job]
        queue.abandon(worker)
    assert (job.status, job.error) == (JobStatus.FAILED, "2 workers ended while they ran this job.")
    assert queue.retry(job)
    assert await queue.take("c") == [job]


async def test_what_is_given_back_too_late_stays_with_whom_it_is() -> None:
    queue = JobQueue()
    job = queue.submit({}, sync=False)
    lost = await queue.take("a")
    queue.abandon("a")
    assert await queue.take("b") == [job]
    queue.give_back("a", lost)
    assert (job.status, job.worker_id) == (JobStatus.IN_PROGRESS, "b")


async def test_finished_jobs_make_room_and_unfinished_ones_do_not() -> None:
    queue = JobQueue(max_jobs=2)
    first = await taken(queue)
    queue.finish("a", first.id, "done")
    rest = [queue.submit(n, sync=False) for n in range(2)]
    assert queue.get(first.id) is None
    with pytest.raises(QueueFullError):
        queue.submit({}, sync=False)
    assert await queue.take("a", 9) == rest


async def test_bytes_are_bounded_too() -> None:
    queue = JobQueue(max_bytes=100)
    first = queue.submit({}, sync=False, size=40)
    await queue.take("a")
    queue.finish("a", first.id, "done", size=50)
    second = queue.submit({}, sync=False, size=60)
    assert queue.get(first.id) is None
    with pytest.raises(QueueFullError):
        queue.submit({}, sync=False, size=41)
    queue.cancel(second.id)
    assert queue.submit({}, sync=False, size=100).status is JobStatus.IN_QUEUE


async def test_jobs_that_leave_the_line_unassigned_are_swept_out() -> None:
    queue = JobQueue(max_jobs=10)
    for _ in range(5000):
        queue.cancel(queue.submit({}, sync=False).id)
    assert len(queue._line._jobs) < 3000
    job = queue.submit({}, sync=False)
    assert await queue.take("a", 9) == [job]


async def test_parts_are_handed_out_once_and_wake_who_waits() -> None:
    queue = JobQueue()
    job = await taken(queue, options=JobOptions())
    waiting = asyncio.create_task(queue.take_parts(job, LONG_S))
    await asyncio.sleep(0)
    assert queue.add_part("a", job.id, b"1", 100)
    assert orjson.dumps(await waiting) == b"[1]"
    assert queue.add_part("a", job.id, b"2", 100)
    assert queue.add_part("a", job.id, b"3", 100)
    assert orjson.dumps(await queue.take_parts(job)) == b"[2,3]"
    waiting = asyncio.create_task(queue.take_parts(job, LONG_S))
    await asyncio.sleep(0)
    queue.finish("a", job.id, "done")
    assert await waiting == []


async def test_parts_that_nobody_asks_for_are_bounded() -> None:
    queue = JobQueue()
    job = await taken(queue, options=JobOptions())
    assert queue.add_part("a", job.id, b"12", 3) is True
    assert queue.add_part("a", job.id, b"34", 3) is None
    assert queue.add_part("b", job.id, b"5", 3) is False
    assert orjson.dumps(await queue.take_parts(job)) == b"[12]"
    assert queue.add_part("a", job.id, b"34", 3) is True
