"""The API's description: what `/openapi.json` and `/docs` say of each operation."""

from http import HTTPStatus
from typing import Any, TypeAlias

from infinity_worker.edge.job import JobStatus
from infinity_worker.edge.options import MAX_MS, WEBHOOK_PATTERN

Json: TypeAlias = dict[str, Any]
Responses: TypeAlias = dict[int | str, Json]

BATCH_DIGITS = 6

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_ANYTHING: Json = {}
_STATUS: Json = {"type": "string", "enum": [status.value for status in JobStatus]}
_REFUSAL_TEXTS = {
    400: "The request is malformed; the message says how.",
    401: "The key is missing or wrong.",
    404: "There is no such job, or it has expired.",
    413: "The body is too large.",
    429: "Too many jobs have not finished yet, or too many workers are connected.",
    503: "The server is stopping.",
    504: "The job has not finished in time.",
}


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required}


def _answer(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _refusals(*statuses: int) -> Responses:
    schema = _object(["error"], error=_TEXT)
    return {status: _answer(_REFUSAL_TEXTS[status], schema) for status in (401, *statuses)}


def _body(schema: Json, *, required: bool = True) -> Json:
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


def _query(name: str, text: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": text, "required": False, "schema": schema}


def _milliseconds(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


_POLICY_MS: Json = {"type": ["number", "null"], "minimum": 1, "maximum": MAX_MS}
_JOB = _object(
    ["input"],
    input=_ANYTHING | {"description": "What the worker gets."},
    webhook={
        "type": ["string", "null"],
        "pattern": WEBHOOK_PATTERN,
        "description": "Where the finished job is posted: an http or https URL.",
    },
    policy={
        "type": ["object", "null"],
        "properties": {
            "executionTimeout": _POLICY_MS | {"description": "Milliseconds; then TIMED_OUT."},
            "ttl": _POLICY_MS | {"description": "Milliseconds; then an unfinished job is gone."},
            "lowPriority": {"type": ["boolean", "null"], "description": "Accepted, of no effect."},
        },
    },
)
_ENVELOPE = _object(
    ["id", "status"],
    id=_TEXT,
    status=_STATUS,
    delayTime=_COUNT | {"description": "Milliseconds in the queue."},
    executionTime=_COUNT | {"description": "Milliseconds at a worker."},
    workerId=_TEXT,
    output=_ANYTHING,
    error=_ANYTHING,
)
_QUEUED = _object(["id", "status"], id=_TEXT, status={"type": "string", "enum": ["IN_QUEUE"]})
_JOB_COUNTS = ("completed", "failed", "inProgress", "inQueue", "retried")
_WORKER_COUNTS = ("idle", "initializing", "ready", "running", "throttled", "unhealthy")
_HEALTH = _object(
    ["jobs", "workers"],
    jobs=_object(list(_JOB_COUNTS), **dict.fromkeys(_JOB_COUNTS, _COUNT)),
    workers=_object(list(_WORKER_COUNTS), **dict.fromkeys(_WORKER_COUNTS, _COUNT)),
)
_ASSIGNMENT = _object(["id", "input"], id=_TEXT, input=_ANYTHING)
_FAILED = _object(["error"], error={"type": "object"})

RUN_BODY = _body(_JOB)
RUN = {200: _answer("The job is in the queue.", _QUEUED)} | _refusals(400, 413, 429)
RUNSYNC_BODY = _body(_JOB) | {
    "parameters": [_query("wait", "Milliseconds to wait.", _milliseconds(1000, 300_000))]
}
RUNSYNC = {200: _answer("The job, finished or not.", _ENVELOPE)} | _refusals(400, 404, 413, 429)
TTL: Json = {
    "parameters": [_query("ttl", "Milliseconds until it is gone.", _milliseconds(1, MAX_MS))]
}
STATUS = {200: _answer("The job.", _ENVELOPE)} | _refusals(400, 404)
STREAM = {
    200: _answer(
        "The parts since the last time.",
        _object(["status", "stream"], status=_STATUS, stream={"type": "array", "items": _ANYTHING}),
    )
} | _refusals(404)
CANCEL = {
    200: _answer("The job's status now.", _object(["id", "status"], id=_TEXT, status=_STATUS))
} | _refusals(404)
RETRY = {200: _answer("The job is in the queue.", _QUEUED)} | _refusals(400, 404)
PURGE = {
    200: _answer(
        "How many jobs were dropped.",
        _object(["removed", "status"], removed=_COUNT, status={"const": "completed"}),
    )
} | _refusals()
HEALTH = {200: _answer("Jobs and workers, counted.", _HEALTH)} | _refusals()

OPENAI_BODY = _body({"type": "object"}, required=False)
OPENAI = (
    {200: _answer("What the job returned.", _ANYTHING)}
    | _refusals(400, 404, 413, 429, 503, 504)
    | {500: _answer("The job failed.", _FAILED)}
)

_NOTHING: Responses = {204: {"description": "There is none: ask again."}}
JOB_TAKE = {200: _answer("A job.", _ASSIGNMENT)} | _NOTHING | _refusals(429)
JOB_TAKE_BATCH = (
    {200: _answer("Jobs.", {"type": "array", "items": _ASSIGNMENT})}
    | _NOTHING
    | _refusals(400, 429)
)
BATCH_SIZE: Json = {
    "parameters": [
        _query("batch_size", "The most jobs.", _milliseconds(1, 10**BATCH_DIGITS - 1)),
    ]
}
JOB_STOP = (
    {200: _answer("Jobs to stop.", _object(["jobsToStop"], jobsToStop={"type": "array"}))}
    | _NOTHING
    | _refusals(429)
)
# The SDK says that it sends a form; it sends JSON, and JSON is read whatever it says.
RESULT_BODY = _body(_object([], output=_ANYTHING, error=_ANYTHING, status=_ANYTHING))
_KEPT: Responses = {200: {"description": "It is kept."}}
JOB_DONE = _KEPT | _refusals(400, 404, 429)
_NOTED: Responses = {200: {"description": "Noted."}}
PING = _NOTED | _refusals(429)
PING_QUERY: Json = {
    "parameters": [
        _query("status", "How it is.", {"type": "string", "examples": ["unhealthy"]}),
        _query("check", "The fitness check that failed.", _TEXT),
    ]
}


def correct(description: Json) -> Json:
    """Takes out of an OpenAPI document what FastAPI adds of itself and what is not so here."""
    for path in description["paths"].values():
        for operation in path.values():
            # Nothing is validated by FastAPI: every refusal is one of the edge's own.
            operation["responses"].pop(str(HTTPStatus.UNPROCESSABLE_ENTITY.value), None)
            if not operation.get("security"):
                operation["responses"].pop(str(HTTPStatus.UNAUTHORIZED.value), None)
    return description
