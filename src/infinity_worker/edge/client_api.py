"""What RunPod's clients call: jobs by `/run` and `/runsync`, and what becomes of them."""

from fastapi import APIRouter, HTTPException, Request, Response

from infinity_worker.edge import schemas
from infinity_worker.edge.envelope import envelope
from infinity_worker.edge.job import Job
from infinity_worker.edge.options import MAX_MS, read_options
from infinity_worker.edge.state import edge_of
from infinity_worker.edge.wire import (
    as_input,
    json_response,
    milliseconds,
    read_body,
    read_object,
    while_wanted,
)

RUNSYNC_WAIT_MS = range(1000, 300_001)
TTL_MS = range(1, MAX_MS + 1)


router = APIRouter()


@router.post("/run", responses=schemas.RUN, openapi_extra=schemas.RUN_BODY)
async def run(request: Request) -> Response:
    """Puts a job in the queue."""
    job = await _submit(request, edge_of(request).settings.run_limit_bytes, sync=False)
    # What a new job looks like, even where a waiting worker has it already.
    return json_response({"id": job.id, "status": "IN_QUEUE"})


@router.post("/runsync", responses=schemas.RUNSYNC, openapi_extra=schemas.RUNSYNC_BODY)
async def runsync(request: Request) -> Response:
    """Puts a job in the queue and waits for it; tells where it stands when the time is up."""
    edge = edge_of(request)
    wait_s = milliseconds(request, "wait", RUNSYNC_WAIT_MS)
    seconds = edge.settings.runsync_s if wait_s is None else wait_s
    job = await _submit(request, edge.settings.runsync_limit_bytes, sync=True)
    await while_wanted(request, edge.closing, edge.queue.wait(job, seconds))
    return json_response(envelope(_found(None if job.gone else job)))


@router.get("/status/{job_id}", responses=schemas.STATUS, openapi_extra=schemas.TTL)
@router.post("/status/{job_id}", responses=schemas.STATUS, openapi_extra=schemas.TTL)
async def status(request: Request, job_id: str) -> Response:
    """Tells where a job stands; `ttl` makes it gone that much later."""
    edge = edge_of(request)
    ttl_s = milliseconds(request, "ttl", TTL_MS)
    job = _found(edge.queue.get(job_id))
    if ttl_s is not None:
        edge.queue.set_ttl(job, ttl_s)
    return json_response(envelope(job))


@router.get("/stream/{job_id}", responses=schemas.STREAM)
async def stream(request: Request, job_id: str) -> Response:
    """Hands out the parts of a job's result that came since the last time, each once."""
    edge = edge_of(request)
    job = _found(edge.queue.get(job_id))
    taking = edge.queue.take_parts(job, edge.settings.stream_s)
    parts = await while_wanted(request, edge.closing, taking) or []
    return json_response({"status": job.status.value, "stream": parts})


@router.post("/cancel/{job_id}", responses=schemas.CANCEL)
async def cancel(request: Request, job_id: str) -> Response:
    """Cancels a job; one that has finished stays as it is."""
    job = _found(edge_of(request).queue.cancel(job_id))
    return json_response({"id": job.id, "status": job.status.value})


@router.post("/retry/{job_id}", responses=schemas.RETRY)
async def retry(request: Request, job_id: str) -> Response:
    """Puts a job that failed or timed out back in the queue, under the same id."""
    queue = edge_of(request).queue
    job = _found(queue.get(job_id))
    if not queue.retry(job):
        raise HTTPException(
            400, f"Only FAILED and TIMED_OUT jobs can be retried, not {job.status}."
        )
    return json_response({"id": job.id, "status": "IN_QUEUE"})


@router.post("/purge-queue", responses=schemas.PURGE)
async def purge_queue(request: Request) -> Response:
    """Drops the jobs that no worker has taken yet."""
    removed = edge_of(request).queue.purge()
    return json_response({"removed": removed, "status": "completed"})


@router.get("/health", responses=schemas.HEALTH)
async def health(request: Request) -> Response:
    """Counts jobs and workers."""
    edge = edge_of(request)
    workers = edge.workers.counts(lambda worker_id: edge.queue.held_by(worker_id) > 0)
    return json_response({"jobs": edge.queue.counts(), "workers": workers})


async def _submit(request: Request, limit: int, *, sync: bool) -> Job:
    content = await read_body(request, limit)
    body = read_object(content)
    if "input" not in body:
        raise HTTPException(400, "The body has no 'input'.")
    options, job_input = read_options(body), as_input(body["input"])
    return edge_of(request).queue.submit(job_input, sync=sync, options=options, size=len(content))


def _found(job: Job | None) -> Job:
    if job is None:
        raise HTTPException(404, "There is no job of that id, or it has expired.")
    return job
