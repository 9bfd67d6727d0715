"""Bodies, JSON and waits, as both sides of the edge use them."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

import orjson
from fastapi import HTTPException, Request, Response

T = TypeVar("T")

_DIGITS = 12
"""Longer numbers are not even read."""


async def read_body(request: Request, limit: int, *, status: int = 413) -> bytes:
    """The body of a request, of which no more than `limit` bytes are ever held.

    Raises:
        HTTPException: With `status`, for a body that is larger.
    """
    too_large = HTTPException(status, f"The body is larger than {limit} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def read_object(body: bytes, *, constants: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """A JSON object from a body.

    The standard library reads what orjson will not: lone surrogates, which the platform passes on,
    and NaN and the infinities, which become what `constants` makes of their names.

    Raises:
        HTTPException: With 400, for anything but a JSON object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(body, parse_constant=constants or _refuse)
        except (ValueError, RecursionError):
            raise HTTPException(400, "The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "The body is not a JSON object.")
    return value


def encode(value: Any) -> bytes:
    """A value as JSON; the standard library writes lone surrogates, as escapes."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value).encode()


def as_input(value: Any) -> orjson.Fragment:
    """A job's input in the form in which it is handed on: written once, when it arrives.

    Raises:
        HTTPException: With 400, for a value nested too deeply to be written.
    """
    try:
        return orjson.Fragment(encode(value))
    except RecursionError:
        raise HTTPException(400, "The input is nested too deeply.") from None


def milliseconds(request: Request, name: str, allowed: range) -> float | None:
    """A duration from the query, in seconds; None where it is not there.

    Raises:
        HTTPException: With 400, for anything but a number of milliseconds that is allowed.
    """
    asked = request.query_params.get(name)
    if asked is None:
        return None
    if not (asked.isdecimal() and len(asked) <= _DIGITS and int(asked) in allowed):
        bounds = f"{allowed.start} to {allowed.stop - 1}"
        raise HTTPException(400, f"'{name}' must be a number of milliseconds, {bounds}.")
    return int(asked) / 1000


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with a JSON body."""
    return Response(encode(value), status, headers, media_type="application/json")


async def while_wanted(
    request: Request, closing: asyncio.Event, work: Coroutine[Any, Any, T]
) -> T | None:
    """The result of `work`, or None where nobody waits for it any more.

    `work` is cancelled as soon as the client has gone away or the server is about to stop.
    """
    task = asyncio.create_task(work)
    ends = [asyncio.create_task(_disconnected(request)), asyncio.create_task(closing.wait())]
    try:
        await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, *ends):
            each.cancel()
        await asyncio.gather(task, *ends, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
