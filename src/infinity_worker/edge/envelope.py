"""What a client is told of a job: the status envelope, or the OpenAI route's plain answer."""

from typing import Any

import orjson

from infinity_worker.edge.job import Job, JobStatus

_ERROR_STATUSES = range(400, 600)


def envelope(job: Job) -> dict[str, Any]:
    """The platform's description of a job; a key appears once there is something to say."""
    told: dict[str, Any] = {"id": job.id, "status": job.status.value}
    if job.started_at is not None:
        told["delayTime"] = _ms(job.started_at - job.created_at)
        if job.finished_at is not None:
            told["executionTime"] = _ms(job.finished_at - job.started_at)
    if job.worker_id is not None:
        told["workerId"] = job.worker_id
    if job.output is not None:
        told["output"] = job.output
    if job.error is not None:
        told["error"] = job.error
    return told


def openai_answer(job: Job, *, codes_as_status: bool = False) -> tuple[int, Any]:
    """The HTTP status and the body that a finished job of the OpenAI route ends in.

    Args:
        job: A job that has finished.
        codes_as_status: Whether an error's own `code` is the status, instead of the platform's 200
            for a job that completed and 500 for one that failed.
    """
    if job.status is JobStatus.COMPLETED:
        status, answer = 200, job.output
        if isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
    elif job.status is JobStatus.FAILED:
        status, answer = 500, {"error": _error_object(job.error)}
    else:
        status, answer = 500, {"error": {"message": f"The job ended as {job.status}."}}
    if codes_as_status and isinstance(answer, dict):
        return _code_of(answer.get("error"), status), answer
    return status, answer


def _code_of(error: Any, status: int) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and code in _ERROR_STATUSES else status


def _error_object(error: Any) -> dict[str, Any]:
    if isinstance(error, str):
        try:
            parsed = orjson.loads(error)
        except orjson.JSONDecodeError:
            return {"message": error}
        return parsed if isinstance(parsed, dict) else {"message": error}
    return error if isinstance(error, dict) else {"message": str(error)}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
