"""What workers call, as the RunPod SDK speaks it."""

import asyncio
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from infinity_worker.edge import schemas
from infinity_worker.edge.job import Job
from infinity_worker.edge.state import OversizedResults, edge_of
from infinity_worker.edge.wire import encode, json_response, read_body, read_object, while_wanted

router = APIRouter()

_LEAVING_PAUSE_S = 0.05
"""What a worker that is about to be stopped waits for nothing: it may ask again until then."""


@router.get("/job-take/{worker_id}", responses=schemas.JOB_TAKE)
async def job_take(request: Request, worker_id: str) -> Response:
    """Hands a worker its next job, as soon as there is one."""
    jobs = await _take(request, worker_id, 1)
    return json_response(_assignment(jobs[0])) if jobs else _nothing()


@router.get(
    "/job-take-batch/{worker_id}",
    responses=schemas.JOB_TAKE_BATCH,
    openapi_extra=schemas.BATCH_SIZE,
)
async def job_take_batch(request: Request, worker_id: str) -> Response:
    """Hands a worker up to `batch_size` jobs, as soon as there is one."""
    asked = request.query_params.get("batch_size", "1")
    if not (asked.isdecimal() and len(asked) <= schemas.BATCH_DIGITS and int(asked) > 0):
        raise HTTPException(400, "'batch_size' must be a number from 1.")
    jobs = await _take(request, worker_id, int(asked))
    return json_response([_assignment(job) for job in jobs]) if jobs else _nothing()


@router.get("/job-stop/{worker_id}", responses=schemas.JOB_STOP)
async def job_stop(request: Request, worker_id: str) -> Response:
    """Tells a worker which of its jobs to stop, as soon as there is one."""
    edge = edge_of(request)
    worker = edge.workers.seen(worker_id)
    wait_s = _LEAVING_PAUSE_S if worker.leaving else edge.settings.poll_s
    signals = edge.queue.stops.collect(worker_id, wait_s)
    job_ids = await while_wanted(request, edge.closing, signals)
    if not job_ids:
        return _nothing()
    if await request.is_disconnected():
        edge.queue.stops.leave(worker_id, job_ids)
    return json_response({"jobsToStop": job_ids})


@router.post(
    "/job-done/{worker_id}/{job_id}",
    response_class=Response,
    responses=schemas.JOB_DONE,
    openapi_extra=schemas.RESULT_BODY,
)
async def job_done(request: Request, worker_id: str, job_id: str) -> Response:
    """Takes a job's result, or a word on its progress."""
    edge = edge_of(request)
    edge.workers.seen(worker_id)
    # JSON, whatever the content type says: the SDK calls it form data.
    try:
        body = await read_body(request, edge.settings.result_limit_bytes, status=400)
    except HTTPException:
        if edge.settings.oversized_results is OversizedResults.COMPLETED:
            edge.queue.finish(worker_id, job_id)
        raise
    result = read_object(body, constants=lambda _name: None)
    output, error = result.get("output"), result.get("error")
    if result.get("status") == "IN_PROGRESS":
        known = edge.queue.progress(worker_id, job_id, output)
    else:
        known = edge.queue.finish(worker_id, job_id, output, error, size=len(body))
    if not known:
        raise _not_its_job()
    return Response()


@router.post(
    "/job-stream/{worker_id}/{job_id}",
    response_class=Response,
    responses=schemas.JOB_DONE,
    openapi_extra=schemas.RESULT_BODY,
)
async def job_stream(request: Request, worker_id: str, job_id: str) -> Response:
    """Takes a part of a job's result."""
    edge = edge_of(request)
    edge.workers.seen(worker_id)
    body = await read_body(request, edge.settings.part_limit_bytes, status=400)
    part = encode(read_object(body, constants=lambda _name: None))
    kept = edge.queue.add_part(worker_id, job_id, part, edge.settings.stream_limit_bytes)
    if kept is None:
        raise HTTPException(400, "Too many parts of this job wait to be asked for.")
    if not kept:
        raise _not_its_job()
    return Response()


@router.get(
    "/ping/{worker_id}",
    response_class=Response,
    responses=schemas.PING,
    openapi_extra=schemas.PING_QUERY,
)
async def ping(request: Request, worker_id: str) -> Response:
    """Notes that a worker is alive, and whether it is well."""
    query = request.query_params
    unhealthy = query.get("status") == "unhealthy"
    edge_of(request).workers.pinged(
        worker_id, unhealthy=unhealthy, check=query.get("check", "") if unhealthy else ""
    )
    return Response()


async def _take(request: Request, worker_id: str, limit: int) -> list[Job]:
    edge = edge_of(request)
    worker = edge.workers.seen(worker_id)
    if not worker.takes_jobs:
        pause_s = _LEAVING_PAUSE_S if worker.leaving else edge.settings.poll_s
        await while_wanted(request, edge.closing, asyncio.sleep(pause_s))
        return []
    taking = edge.queue.take(worker_id, limit, edge.settings.poll_s)
    jobs = await while_wanted(request, edge.closing, taking) or []
    # The client may have left in the moment in which the jobs were assigned.
    if jobs and await request.is_disconnected():
        edge.queue.give_back(worker_id, jobs)
        return []
    return jobs


def _assignment(job: Job) -> dict[str, Any]:
    return {"id": job.id, "input": job.input}


def _nothing() -> Response:
    return Response(status_code=204)


def _not_its_job() -> HTTPException:
    return HTTPException(404, "There is no such job in progress at this worker.")
