"""A load-balancing endpoint on one machine: requests go straight to a healthy worker.

As on the platform nothing is queued or sent a second time. A request for which there is no worker
within two minutes ends with 400, one that takes a worker more than 5.5 minutes with 524, and one
whose worker breaks off with 502.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.requests import ClientDisconnect
from yarl import URL

from infinity_worker.edge.access import KeyGuard
from infinity_worker.edge.pool import Pin, Pool
from infinity_worker.edge.wire import json_response, read_body, while_wanted

WORKER_HEADER = "X-Runpod-Worker-Id"
_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
_TIMED_OUT = 524
# Of the connection and not of the message (RFC 9110, 7.6.1), or made anew on each side.
_HOP_BY_HOP = frozenset(
    (
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "proxy-authorization", "content-length", "host", "date"),
    )
)
# The endpoint's key is none of the workers' business.
_KEPT_BACK = _HOP_BY_HOP | {"authorization", WORKER_HEADER.lower()}


@dataclass(frozen=True, slots=True)
class BalancerSettings:
    """How the endpoint behaves; the defaults are the platform's. Times are in seconds.

    Attributes:
        api_key: What clients must send; None lets anybody in.
        no_worker_s: How long a request waits for a worker.
        request_s: How long a worker may take.
        limit_bytes: The most bytes of a request.
    """

    api_key: str | None = field(default=None, repr=False)
    no_worker_s: float = 120.0
    request_s: float = 330.0
    limit_bytes: int = 30_000_000


def create_balancer(settings: BalancerSettings, pool: Pool) -> FastAPI:
    """An endpoint with these workers; `app.state.closing` ends all its open requests."""
    closing = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Bodies are handed on as they are, compressed or not.
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            app.state.session = session
            watching = asyncio.create_task(pool.watch(session))
            yield
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    keys = [Depends(KeyGuard(settings.api_key, "API key"))] if settings.api_key else []
    app = FastAPI(title="RunPod load balancer", openapi_url=None, lifespan=lifespan)
    app.state.closing = closing
    app.exception_handler(HTTPException)(_refusal)
    app.exception_handler(ClientDisconnect)(_nobody_there)

    @app.api_route("/{path:path}", methods=_METHODS, dependencies=keys)
    async def pass_on(request: Request) -> Response:
        """Hand a request to a worker, and its answer back."""
        body = await read_body(request, settings.limit_bytes)
        work = _answer(request, body, pool, settings)
        answer = await while_wanted(request, closing, work)
        return answer or json_response({"error": "The server is stopping."}, 503)

    return app


async def _answer(
    request: Request, body: bytes, pool: Pool, settings: BalancerSettings
) -> Response:
    pin = Pin.read(request.headers.get(WORKER_HEADER))
    try:
        async with pool.worker(pin, settings.no_worker_s) as backend:
            answer = await _ask(request, body, backend.url, settings.request_s)
            answer.headers[WORKER_HEADER] = backend.worker_id
            return answer
    except TimeoutError:
        error = f"No worker was available within {settings.no_worker_s:g} s."
        return json_response({"error": error}, 400)


async def _ask(request: Request, body: bytes, url: str, limit_s: float) -> Response:
    path = request.scope["raw_path"].decode("latin-1")
    query = f"?{request.url.query}" if request.url.query else ""
    session: aiohttp.ClientSession = request.app.state.session
    headers = {name: value for name, value in request.headers.items() if name not in _KEPT_BACK}
    try:
        async with session.request(
            request.method,
            URL(f"{url}{path}{query}", encoded=True),
            data=body or None,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=limit_s, sock_connect=5.0),
        ) as reply:
            content = await reply.read()
            answer = Response(content, reply.status)
            for name, value in reply.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    answer.headers[name] = value
            return answer
    except TimeoutError:
        return json_response({"error": f"The worker took more than {limit_s:g} s."}, _TIMED_OUT)
    except (aiohttp.ClientError, OSError):
        return json_response({"error": "The worker broke off, or does not listen."}, 502)


async def _refusal(_request: Request, error: HTTPException) -> Response:
    return json_response({"error": error.detail}, error.status_code, error.headers)


async def _nobody_there(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=400)
