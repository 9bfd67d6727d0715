"""What clients call: jobs by `/run` and `/runsync`, and the OpenAI route."""

from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from infinity_worker.edge.envelope import envelope, openai_answer
from infinity_worker.edge.jobs import Job
from infinity_worker.edge.state import Edge, edge_of
from infinity_worker.edge.wire import as_input, json_response, read_body, read_object, while_wanted

RUNSYNC_WAIT_MS = range(1000, 300_001)
ANY_METHOD = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


async def known_endpoint(request: Request, endpoint_id: str) -> None:
    """Refuses requests for an endpoint that is not served here."""
    if endpoint_id != edge_of(request).settings.endpoint_id:
        raise HTTPException(404, "There is no endpoint of that id.")


router = APIRouter(prefix="/v2/{endpoint_id}", dependencies=[Depends(known_endpoint)])
root_router = APIRouter()


@router.post("/run")
async def run(request: Request) -> Response:
    """Puts a job in the queue."""
    edge = edge_of(request)
    job_input = await _job_input(request, edge.settings.run_limit_bytes)
    job = edge.queue.submit(job_input, sync=False)
    # What a new job looks like, even where a waiting worker has it already.
    return json_response({"id": job.id, "status": "IN_QUEUE"})


@router.post("/runsync")
async def runsync(request: Request) -> Response:
    """Puts a job in the queue and waits for it; tells where it stands when the time is up."""
    edge = edge_of(request)
    seconds = _runsync_wait(request, edge.settings.runsync_s)
    job_input = await _job_input(request, edge.settings.runsync_limit_bytes)
    job = edge.queue.submit(job_input, sync=True)
    await while_wanted(request, edge.closing, edge.queue.wait(job, seconds))
    return json_response(envelope(job))


@router.api_route("/status/{job_id}", methods=["GET", "POST"])
async def status(request: Request, job_id: str) -> Response:
    """Tells where a job stands."""
    return json_response(envelope(_found(edge_of(request).queue.get(job_id))))


@router.post("/cancel/{job_id}")
async def cancel(request: Request, job_id: str) -> Response:
    """Cancels a job; one that has finished stays as it is."""
    job = _found(edge_of(request).queue.cancel(job_id))
    return json_response({"id": job.id, "status": job.status.value})


@router.get("/health")
async def health(request: Request) -> Response:
    """Counts jobs and workers."""
    edge = edge_of(request)
    workers = edge.workers.counts(edge.queue.is_busy)
    return json_response({"jobs": edge.queue.counts(), "workers": workers})


@router.api_route("/openai/{path:path}", methods=ANY_METHOD)
async def openai(request: Request, path: str) -> Response:
    """Turns an OpenAI request into a job, and the job's end into the answer."""
    return await _openai(request, f"/{path}")


@root_router.api_route("/v1/{path:path}", methods=ANY_METHOD)
async def openai_at_root(request: Request, path: str) -> Response:
    """The same for clients that know a host only."""
    return await _openai(request, f"/v1/{path}")


async def _openai(request: Request, route: str) -> Response:
    edge = edge_of(request)
    body = await read_body(request, edge.settings.runsync_limit_bytes)
    openai_input = read_object(body) if body else {}
    job_input = as_input({"openai_route": route, "openai_input": openai_input})
    job = edge.queue.submit(job_input, sync=True)
    await while_wanted(request, edge.closing, edge.queue.wait(job, edge.settings.openai_s))
    if not job.finished.is_set():
        raise _unfinished(edge)
    edge.queue.forget(job)
    status_code, answer = openai_answer(job)
    return json_response(answer, status_code)


def _unfinished(edge: Edge) -> HTTPException:
    if edge.closing.is_set():
        return HTTPException(503, "The server is stopping.")
    return HTTPException(504, f"The job has not finished within {edge.settings.openai_s:g} s.")


async def _job_input(request: Request, limit: int) -> Any:
    body = read_object(await read_body(request, limit))
    if "input" not in body:
        raise HTTPException(400, "The body has no 'input'.")
    return as_input(body["input"])


def _runsync_wait(request: Request, default_s: float) -> float:
    asked = request.query_params.get("wait")
    if asked is None:
        return default_s
    if not (asked.isdecimal() and int(asked) in RUNSYNC_WAIT_MS):
        bounds = f"{RUNSYNC_WAIT_MS.start} to {RUNSYNC_WAIT_MS.stop - 1}"
        raise HTTPException(400, f"'wait' must be a number of milliseconds, {bounds}.")
    return int(asked) / 1000


def _found(job: Job | None) -> Job:
    if job is None:
        raise HTTPException(404, "There is no job of that id, or its result has expired.")
    return job
