"""What OpenAI clients call: any method, any path, each request a job."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from infinity_worker.edge.envelope import openai_answer
from infinity_worker.edge.schemas import OPENAI, OPENAI_BODY
from infinity_worker.edge.state import Edge, OpenAIErrors, edge_of
from infinity_worker.edge.wire import as_input, json_response, read_body, read_object, while_wanted

OTHERS = ["DELETE", "HEAD", "OPTIONS", "PATCH", "PUT"]

router = APIRouter()
root_router = APIRouter()


@router.api_route("/openai/{path:path}", methods=OTHERS, include_in_schema=False)
@router.get("/openai/{path:path}", responses=OPENAI)
@router.post("/openai/{path:path}", responses=OPENAI, openapi_extra=OPENAI_BODY)
async def openai(request: Request, path: str) -> Response:
    """Turns an OpenAI request, of any method, into a job, and the job's end into the answer."""
    return await _openai(request, f"/{path}")


@root_router.api_route("/v1/{path:path}", methods=OTHERS, include_in_schema=False)
@root_router.get("/v1/{path:path}", responses=OPENAI)
@root_router.post("/v1/{path:path}", responses=OPENAI, openapi_extra=OPENAI_BODY)
async def openai_at_root(request: Request, path: str) -> Response:
    """The same for clients that know a host only."""
    return await _openai(request, f"/v1/{path}")


async def _openai(request: Request, route: str) -> Response:
    edge = edge_of(request)
    body = await read_body(request, edge.settings.runsync_limit_bytes)
    asked: dict[str, Any] = {"openai_route": route}
    if body or edge.settings.empty_openai_input:
        asked["openai_input"] = read_object(body) if body else {}
    job = edge.queue.submit(as_input(asked), sync=True, size=len(body))
    await while_wanted(request, edge.closing, edge.queue.wait(job, edge.settings.openai_s))
    if not job.finished.is_set():
        raise _unfinished(edge)
    edge.queue.forget(job)
    if job.gone:
        raise HTTPException(404, "The job was dropped from the queue.")
    codes_as_status = edge.settings.openai_errors is OpenAIErrors.HTTP
    status_code, answer = openai_answer(job, codes_as_status=codes_as_status)
    return json_response(answer, status_code)


def _unfinished(edge: Edge) -> HTTPException:
    if edge.closing.is_set():
        return HTTPException(503, "The server is stopping.")
    return HTTPException(504, f"The job has not finished within {edge.settings.openai_s:g} s.")
