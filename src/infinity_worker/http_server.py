"""The worker as an HTTP server: load-balancing endpoints, and any place that runs a container.

It listens at once, so that `/ping` can say that the engine loads. Told to end, it says so on
`/ping` first, goes on for a while, and leaves when what it took is answered.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any, Protocol

import uvicorn
import uvloop

from infinity_worker.http_app import HttpApp
from infinity_worker.http_app import Service as Answering
from infinity_worker.metrics import Metrics
from infinity_worker.settings import Settings
from infinity_worker.variables import SettingsError

log = logging.getLogger(__name__)

# Longer than load balancers keep idle connections (60 s is usual), so that none of theirs is closed
# at the moment at which it is used.
_KEEP_ALIVE_S = 75
_LAST_BYTES_S = 2
_BACKLOG = 2048


class Service(Answering, Protocol):
    """What answers the requests, and what it needs for that."""

    async def prepare(self) -> None:
        """Return once requests can be answered; raise if they never will be."""

    def taking(self) -> None:
        """Note that requests are taken from now on."""

    async def supervise(self) -> None:
        """Go on until cancelled; raise when no more requests should be taken."""

    async def close(self) -> None:
        """End what is held open."""


def run(service: Service, metrics: Metrics, settings: Settings) -> None:
    """Answer HTTP requests until told to end.

    Args:
        service: what answers them; it is prepared while the server already listens.
        metrics: where they are counted.
        settings: addresses, keys, limits and times.

    Raises:
        SettingsError: an address cannot be listened on.
        Exception: what `prepare` or `supervise` raised.
    """
    sockets = _listen(settings)
    uvloop.run(HttpServer(service, metrics, settings).run(sockets))


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers: when to leave is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class HttpServer:
    """One server's life.

    Args:
        service: what answers.
        metrics: where requests are counted.
        settings: times and limits.
    """

    def __init__(self, service: Service, metrics: Metrics, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._app = HttpApp(service, metrics, settings)
        self._ending = asyncio.Event()
        self._leave = asyncio.Event()
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                self._app,
                http="httptools",
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                # It has nothing to say but tracebacks.
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_BYTES_S,
            )
        )

    async def run(self, sockets: list[socket.socket]) -> None:
        """Serve until told to end, or until the engine cannot be kept alive."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        for listener in sockets:
            log.info("listening on %s", _url(listener))
        serving = asyncio.create_task(self._uvicorn.serve(sockets))
        working = asyncio.create_task(self._work())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({serving, working, ending}, return_when=asyncio.FIRST_COMPLETED)
            # An engine that is lost answers nobody: there is no point in taking more.
            await self._drain(0.0 if working.done() else self._settings.drain_delay_s)
            if working.done():
                working.result()
        finally:
            self._uvicorn.should_exit = True
            await _ended(serving)
            for task in (working, ending):
                task.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)
            await self._service.close()

    async def _work(self) -> None:
        """Prepare, then supervise."""
        await self._service.prepare()
        self._app.is_loaded = True
        self._service.taking()
        await self._service.supervise()

    async def _drain(self, delay_s: float) -> None:
        """Have load balancers see that the worker leaves, then finish what was taken."""
        app, bound_s = self._app, self._settings.shutdown_timeout_s
        app.is_draining = True
        log.info("draining: %d requests in progress, for %.0f s at most", app.in_progress, bound_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await self._left_within(delay_s)
                app.is_closed = True
                # A request that is done ends in a turn of the loop of its own: nothing to wait for.
                while app.in_progress and not self._leave.is_set():
                    await self._left_within(0.02)
        app.is_closed = True

    async def _left_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leave.wait(), seconds)

    def _told_to_end(self) -> None:
        """On the first signal drain, within a bound; on the second leave."""
        if self._ending.is_set():
            self._leave.set()
        self._ending.set()


def _listen(settings: Settings) -> list[socket.socket]:
    ports = [settings.port]
    if settings.health_port not in (None, settings.port):
        ports.append(int(settings.health_port or 0))
    sockets = []
    host = settings.http_host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        try:
            sockets.append(socket.create_server((host, port), family=family, backlog=_BACKLOG))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host} port {port} ({error.strerror}): set HTTP_HOST, PORT or "
                "PORT_HEALTH"
            ) from None
    return sockets


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _ended(serving: "asyncio.Task[Any]") -> None:
    await asyncio.wait({serving})
    if not serving.cancelled() and serving.exception() is not None:
        log.error("the server ended: %s", type(serving.exception()).__name__)
