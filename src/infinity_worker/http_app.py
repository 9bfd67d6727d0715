"""The ASGI application: HTTP requests to the handler, and its results on the wire.

A plain ASGI callable: what a framework's routing and validation would cost is of the order of what
a whole request costs here.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from itertools import count
from typing import Any, Protocol, TypeAlias

import orjson

from infinity_worker import http_description
from infinity_worker.errors import MethodNotAllowed, RequestError, Unauthorized
from infinity_worker.http_body import ClientGoneError, Receive, read_json
from infinity_worker.logs import JobRecord, place_of
from infinity_worker.metrics import CONTENT_TYPE, OTHER, Gauges, Metrics
from infinity_worker.results import JobResult, Report, answer_of
from infinity_worker.service import Health
from infinity_worker.settings import Settings
from infinity_worker.utils import create_error_response

log = logging.getLogger(__name__)

Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope: TypeAlias = MutableMapping[str, Any]
Headers: TypeAlias = list[tuple[bytes, bytes]]

JSON = b"application/json"
_HTML = b"text/html; charset=utf-8"
RETRY_AFTER = {HTTPStatus.TOO_MANY_REQUESTS: b"1", HTTPStatus.SERVICE_UNAVAILABLE: b"5"}
"""Seconds. The engine is back within some, a full queue is shorter a moment later."""

_READ = ("GET", "HEAD")
_PAGES = {"/ping", "/health", "/metrics", "/docs", http_description.DESCRIPTION_PATH}
# Load balancers have no keys, and browsers none to send with a page.
_OPEN = _PAGES - {"/health", "/metrics"}


class State(StrEnum):
    """What the worker can do, and the status of `/ping` that says so to the platform."""

    LOADING = "loading"
    READY = "ready"
    DOWN = "down"
    DRAINING = "draining"


PING = {
    State.LOADING: HTTPStatus.NO_CONTENT,
    State.READY: HTTPStatus.OK,
    State.DOWN: HTTPStatus.SERVICE_UNAVAILABLE,
    State.DRAINING: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Service(Protocol):
    """What answers the requests."""

    async def answer(self, job: Mapping[str, object], record: JobRecord) -> JobResult:
        """Answer one job, and note in the record what the log may say about it."""

    def health(self) -> Health:
        """How the worker is now."""

    def engine_memory(self) -> int | None:
        """The engine's resident bytes, where it is this worker's own; takes milliseconds."""


class HttpApp:
    """Answers HTTP requests with the handler that answers a queue's jobs.

    Args:
        service: what answers.
        metrics: where it is counted.
        settings: keys and limits.

    Attributes:
        is_loaded: set to True once requests can be answered; they get a 503 before.
        is_draining: set to True once the worker is to leave the pool.
        is_closed: set to True once no more requests are taken.
        in_progress: requests that are not done.
    """

    def __init__(self, service: Service, metrics: Metrics, settings: Settings) -> None:
        self.is_loaded = self.is_draining = self.is_closed = False
        self.in_progress = 0
        self._service = service
        self._metrics = metrics
        self._settings = settings
        self._keys = [key.encode() for key in settings.api_keys]
        self._ids = (
            f"{prefix}-{number}" for prefix in [secrets.token_hex(4)] for number in count()
        )
        self._began = time.monotonic()

    @property
    def state(self) -> State:
        """What the worker can do now."""
        if self.is_draining:
            return State.DRAINING
        if not self.is_loaded:
            return State.LOADING
        return State.READY if self._service.health().embeds else State.DOWN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; called by the server."""
        path: str = scope["path"]
        if path in _PAGES:
            await self._tell(path, scope, send)
            return
        began = time.perf_counter()
        record = JobRecord(next(self._ids), route=OTHER)
        self.in_progress += 1
        try:
            try:
                report, headers = await self._answer(path, scope, receive, record)
            except ClientGoneError:
                record.write("stopped")
                return
            except asyncio.CancelledError:
                # The time that there was for draining is over.
                report, headers = self._unavailable("the worker is ending"), []
            except Exception as error:  # noqa: BLE001  # a request without an answer would hang
                log.error("job %s cannot be answered: %s", record.job_id, place_of(error))  # noqa: TRY400  # a traceback may repeat an input
                failure = create_error_response("internal error", "internal_error", 500)
                report, headers = self._written(failure), []
            await self._send(send, report.code, report.body, headers, record.job_id)
        finally:
            self.in_progress -= 1
        outcome = "ok" if report.code == HTTPStatus.OK else "error"
        record.write(outcome, report.code, len(report.body))
        self._metrics.answered(record, report.code, time.perf_counter() - began)

    async def _answer(
        self, path: str, scope: Scope, receive: Receive, record: JobRecord
    ) -> tuple[Report, Headers]:
        """The answer to a request that is meant for the handler, whatever comes of it.

        Raises:
            ClientGoneError: the client hung up, and what was being done for it has ended.
        """
        headers = dict(scope["headers"])
        try:
            self._admit(headers)
            _check_method(path, scope["method"])
            if not self.is_loaded or self.is_closed:
                why = "ending" if self.is_closed else "loading its models"
                return self._unavailable(f"the worker is {why}"), []
            body = await read_json(headers, receive, self._settings.request_limit_bytes)
        except RequestError as error:
            failure = create_error_response(str(error), error.type, error.code, error.param)
            return self._written(failure), _headers_of(error, path)
        job = {"id": record.job_id, "input": {"openai_route": path, "openai_input": body}}
        del body
        return self._written(await _while_connected(self._service.answer(job, record), receive)), []

    def _unavailable(self, why: str) -> Report:
        message = f"{why}: try again later"
        return self._written(create_error_response(message, "engine_unavailable", 503))

    def _written(self, result: JobResult) -> Report:
        return answer_of(result, self._settings.result_limit_bytes)

    def _admit(self, headers: Mapping[bytes, bytes]) -> None:
        if not self._keys:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        # All of them are compared, so that the time says nothing about which came close.
        matches = [hmac.compare_digest(given.strip(), key) for key in self._keys]
        if scheme.lower() != b"bearer" or not any(matches):
            raise Unauthorized("the API key is missing or wrong: send Authorization: Bearer KEY")

    async def _send(
        self, send: Send, code: int, body: bytes, extra: Iterable[tuple[bytes, bytes]], job_id: str
    ) -> None:
        headers = [
            (b"content-type", JSON),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", job_id.encode()),
            *extra,
        ]
        if code in RETRY_AFTER:
            headers.append((b"retry-after", RETRY_AFTER[HTTPStatus(code)]))
        if code == HTTPStatus.INTERNAL_SERVER_ERROR:
            # OpenAI's clients would try again, and what ended the engine would end it again.
            headers.append((b"x-should-retry", b"false"))
        if self.is_draining:
            headers.append((b"connection", b"close"))
        await _respond(send, code, headers, body)

    async def _tell(self, path: str, scope: Scope, send: Send) -> None:
        """Answer those who ask about the worker itself."""
        code, kind, body = HTTPStatus.OK, JSON, b""
        extra: Headers = []
        try:
            if scope["method"] not in _READ:
                raise MethodNotAllowed(f"{path} takes GET")
            if path not in _OPEN:
                self._admit(dict(scope["headers"]))
            if path == "/ping":
                code = PING[self.state]
            else:
                kind, body = await self._shown(path)
        except RequestError as error:
            code, extra = HTTPStatus(error.code), _headers_of(error, path)
            body = orjson.dumps(create_error_response(str(error), error.type, code, error.param))
        headers = [(b"content-type", kind), *extra]
        if code != HTTPStatus.NO_CONTENT:
            headers.append((b"content-length", b"%d" % len(body)))
        if self.is_draining:
            headers.append((b"connection", b"close"))
        await _respond(send, code, headers, body)

    async def _shown(self, path: str) -> tuple[bytes, bytes]:
        """The content type and content of a page."""
        match path:
            case "/health":
                return JSON, self._health()
            case "/metrics":
                return CONTENT_TYPE.encode(), await self._exposition()
            case "/docs":
                return _HTML, await asyncio.to_thread(http_description.page)
            case _:
                described = http_description.describe(has_keys=bool(self._keys))
                return JSON, orjson.dumps(described)

    def _health(self) -> bytes:
        health = self._service.health()
        return orjson.dumps(
            {
                "state": self.state,
                "models": health.models,
                "uptime_s": round(time.monotonic() - self._began, 1),
                "engine_restarts": health.restarts,
                "waiting_items": health.waiting_items,
                "requests_in_progress": self.in_progress,
            }
        )

    async def _exposition(self) -> bytes:
        health, is_ready = self._service.health(), self.state is State.READY
        memory = await asyncio.to_thread(self._service.engine_memory)
        return self._metrics.exposition(
            Gauges(is_ready, health.restarts, health.waiting_items, self.in_progress, memory)
        )


async def _while_connected(work: Awaitable[JobResult], receive: Receive) -> JobResult:
    """Await a result; when the client hangs up before, the work is cancelled.

    Raises:
        ClientGoneError: it did.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # narrows the type: the server runs a task for each request
    watch = _HangUp(task)
    watching = task.get_loop().create_task(watch.run(receive))
    try:
        return await work
    except asyncio.CancelledError:
        if watch.happened and task.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        watching.cancel()


class _HangUp:
    """Cancels a task when its client hangs up."""

    __slots__ = ("_task", "happened")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self.happened = False

    async def run(self, receive: Receive) -> None:
        """Wait for it; the body has been read, so nothing else can come."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.happened = True
        self._task.cancel()


async def _respond(
    send: Send, code: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> None:
    await send({"type": "http.response.start", "status": int(code), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _check_method(path: str, method: str) -> None:
    """Lists are read, everything else is posted; what there is, the handler knows.

    Raises:
        MethodNotAllowed: it is the other way round.
    """
    takes_read = _is_read(path)
    if takes_read and method not in _READ:
        raise MethodNotAllowed("this route takes GET")
    if not takes_read and method != "POST":
        raise MethodNotAllowed("this route takes POST")


def _headers_of(error: RequestError, path: str) -> Headers:
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, MethodNotAllowed):
        takes_read = path in _PAGES or _is_read(path)
        return [(b"allow", b"GET, HEAD" if takes_read else b"POST")]
    return []


def _is_read(path: str) -> bool:
    return f"{path.removeprefix('/v1')}/".startswith("/models/")
