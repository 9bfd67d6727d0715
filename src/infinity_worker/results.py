"""A job's result as the bytes that are posted to the platform, or answered over HTTP.

What is posted is `{"output": …}` for a job that completed and `{"error": "…"}` for one that failed.
The platform needs that error to be a string: a structured one was seen to end as COMPLETED without
output (runpod-python#299). It is the error object as JSON text.
"""

import logging
import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

import numpy as np
import orjson

from infinity_worker.utils import JsonObject, create_error_response

log = logging.getLogger(__name__)

JobResult: TypeAlias = JsonObject | list[JsonObject]

_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
# What an entry of `data` costs beside its numbers: its keys, quotes and commas.
_ENTRY_BYTES = 60
# Room for the envelope when saying how many items would fit.
_SAFETY = 0.98


@dataclass(frozen=True, slots=True)
class Report:
    """What is posted, or answered, for one job.

    Attributes:
        body: JSON text in UTF-8.
        code: 200, or the code of the error that it carries.
    """

    body: bytes
    code: int


def report_of(result: JobResult, limit: int) -> Report:
    """Write a result; what cannot be written or is too large becomes an error.

    Args:
        result: a handler's; arrays of float32 are written in their shortest exact form. All
            numbers in it are finite: `InfinityClient` sees to that, JSON has no NaN.
        limit: the most bytes that the platform takes.
    """
    code = _error_code(result)
    try:
        body = _body(result)
    except TypeError:
        log.error("a result cannot be written as JSON")  # noqa: TRY400  # nothing more is known
        failure = create_error_response(
            "internal error: the result cannot be written as JSON", "internal_error", 500
        )
        return Report(_body(failure), HTTPStatus.INTERNAL_SERVER_ERROR)
    if len(body) <= limit:
        return Report(body, code)
    failure = create_error_response(
        _too_large(result, len(body), limit), "request_too_large", _TOO_LARGE
    )
    # On an OpenAI route, a list of one, it is the caller's fault: that job completes.
    return Report(_body([failure] if isinstance(result, list) else failure), _TOO_LARGE)


def answer_of(result: JobResult, limit: int) -> Report:
    """Write a result as the body of an HTTP response: the bare object.

    Args:
        result: a handler's.
        limit: the most bytes that a response may have.
    """
    answer = result[0] if isinstance(result, list) else result
    body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(body) <= limit:
        return Report(body, _error_code(answer))
    text = _too_large(answer, len(body), limit)
    failure = create_error_response(text, "request_too_large", _TOO_LARGE)
    return Report(orjson.dumps(failure), _TOO_LARGE)


def refused_report(result: JobResult, size: int) -> Report:
    """What to post instead of a result that the platform would not take."""
    failure = create_error_response(
        f"the platform refused the result of {size:,} bytes: send fewer items a request, or ask "
        "for encoding_format base64",
        "request_too_large",
        _TOO_LARGE,
    )
    return Report(_body([failure] if isinstance(result, list) else failure), _TOO_LARGE)


def _body(result: JobResult) -> bytes:
    if isinstance(result, dict) and "error" in result:
        return orjson.dumps({"error": orjson.dumps(result["error"]).decode()})
    return orjson.dumps({"output": result}, option=orjson.OPT_SERIALIZE_NUMPY)


def _error_code(result: JobResult) -> int:
    answer = result[0] if isinstance(result, list) and result else result
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else HTTPStatus.OK


def _too_large(result: JobResult, size: int, limit: int) -> str:
    """Say the size, the limit, and how many items would fit."""
    text = f"the result is {size:,} bytes, the limit is {limit:,}"
    answer = result[0] if isinstance(result, list) else result
    data = answer.get("data")
    if not isinstance(data, list) or not data:
        return text
    text += f": send at most {int(limit * _SAFETY / size * len(data)):,} items a request"
    embedding = data[0].get("embedding")
    if not isinstance(embedding, np.ndarray):
        return text
    base64_bytes = _ENTRY_BYTES + 4 * math.ceil(embedding.nbytes / 3)
    return f"{text}, or {int(limit * _SAFETY / base64_bytes):,} with encoding_format base64"
