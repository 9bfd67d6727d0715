"""What workers call, as the RunPod SDK speaks it."""

from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from infinity_worker.edge.client_api import known_endpoint
from infinity_worker.edge.jobs import Job
from infinity_worker.edge.state import edge_of
from infinity_worker.edge.wire import json_response, read_body, read_object, while_wanted

router = APIRouter(prefix="/v2/{endpoint_id}", dependencies=[Depends(known_endpoint)])


@router.get("/job-take/{worker_id}")
async def job_take(request: Request, worker_id: str) -> Response:
    """Hands a worker its next job, as soon as there is one."""
    jobs = await _take(request, worker_id, 1)
    return json_response(_assignment(jobs[0])) if jobs else _nothing()


@router.get("/job-take-batch/{worker_id}")
async def job_take_batch(request: Request, worker_id: str) -> Response:
    """Hands a worker up to `batch_size` jobs, as soon as there is one."""
    asked = request.query_params.get("batch_size", "1")
    if not asked.isdecimal() or int(asked) < 1:
        raise HTTPException(400, "'batch_size' must be a number from 1.")
    jobs = await _take(request, worker_id, int(asked))
    return json_response([_assignment(job) for job in jobs]) if jobs else _nothing()


@router.get("/job-stop/{worker_id}")
async def job_stop(request: Request, worker_id: str) -> Response:
    """Tells a worker which of its jobs to stop, as soon as there is one."""
    edge = edge_of(request)
    edge.workers.seen(worker_id)
    signals = edge.queue.stop_signals(worker_id, edge.settings.poll_s)
    job_ids = await while_wanted(request, edge.closing, signals)
    if not job_ids:
        return _nothing()
    if await request.is_disconnected():
        edge.queue.signal_stop(worker_id, job_ids)
    return json_response({"jobsToStop": job_ids})


@router.post("/job-done/{worker_id}/{job_id}")
async def job_done(request: Request, worker_id: str, job_id: str) -> Response:
    """Takes a job's result, or a word on its progress."""
    edge = edge_of(request)
    # JSON, whatever the content type says: the SDK calls it form data.
    body = await read_body(request, edge.settings.result_limit_bytes, status=400)
    result = read_object(body, constants=lambda _name: None)
    output, error = result.get("output"), result.get("error")
    if result.get("status") == "IN_PROGRESS":
        known = edge.queue.progress(worker_id, job_id, output)
    else:
        known = edge.queue.finish(worker_id, job_id, output, error)
    if not known:
        raise HTTPException(404, "There is no such job in progress.")
    return Response()


@router.post("/job-stream/{worker_id}/{job_id}")
async def job_stream(worker_id: str, job_id: str) -> Response:  # noqa: ARG001  # parts of the path
    """Accepts a part of a job's result."""
    return Response()


@router.get("/ping/{worker_id}")
async def ping(request: Request, worker_id: str) -> Response:
    """Notes that a worker is alive."""
    edge_of(request).workers.seen(worker_id)
    return Response()


async def _take(request: Request, worker_id: str, limit: int) -> list[Job]:
    edge = edge_of(request)
    edge.workers.seen(worker_id)
    taking = edge.queue.take(worker_id, limit, edge.settings.poll_s)
    jobs = await while_wanted(request, edge.closing, taking) or []
    # The client may have left in the moment in which the jobs were assigned.
    if jobs and await request.is_disconnected():
        edge.queue.give_back(jobs)
    return jobs


def _assignment(job: Job) -> dict[str, Any]:
    return {"id": job.id, "input": job.input}


def _nothing() -> Response:
    return Response(status_code=204)
