"""What a client is told of a job: the status envelope, or the OpenAI route's plain answer."""

from typing import Any

import orjson

from infinity_worker.edge.jobs import Job, JobStatus


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


def openai_answer(job: Job) -> tuple[int, Any]:
    """The HTTP status and the body that a finished job of the OpenAI route ends in."""
    if job.status is JobStatus.COMPLETED:
        match job.output:
            case [only]:
                return 200, only
            case output:
                return 200, output
    if job.status is JobStatus.FAILED:
        return 500, {"error": _error_object(job.error)}
    return 500, {"error": {"message": f"The job ended as {job.status}."}}


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
