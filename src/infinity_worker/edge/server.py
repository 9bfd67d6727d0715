"""Runs an application, the edge above all, in a thread of its own."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn

from infinity_worker.edge.app import create_app
from infinity_worker.edge.state import Edge, EdgeSettings

START_S = 30.0
"""How long an application may take to start."""

STOP_S = 10.0
"""How long a stop may take, over what the open requests are granted."""


CALL_S = 10.0
"""How long a call into the edge may take."""

T = TypeVar("T")


class OpenEdgeError(ValueError):
    """The edge would listen where others reach it, without a key."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} can be reached from other machines: an API key for clients and a token for "
            "workers are needed to listen there"
        )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, before_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown
        self.listening = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Lifespan's shutdown would be too late: uvicorn waits for open requests before it.
        self._before_shutdown()
        await super().shutdown(sockets)


class AppServer:
    """An ASGI application on a port of this machine; a context manager.

    Args:
        app: Any ASGI application.
        host: The address to listen on.
        port: 0 lets the system choose one.
        grace_s: How long requests still open at a stop may run on.
        before_shutdown: Called in the server's event loop when a stop begins.
        log_level: Uvicorn's; requests themselves are not logged at any level.
    """

    def __init__(  # noqa: PLR0913  # each one is a knob of uvicorn's, all but the first optional
        self,
        app: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        grace_s: int = 5,
        before_shutdown: Callable[[], None] = lambda: None,
        log_level: str = "warning",
    ) -> None:
        self._address = (host, port)
        self._grace_s = grace_s
        config = uvicorn.Config(
            app,
            log_level=log_level,
            # The program's own logging stays as it was set up.
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=grace_s,
        )
        self._server = _Server(config, before_shutdown)
        self._thread: threading.Thread | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where it listens, once started: `http://host:port`."""
        return self._url

    def start(self) -> None:
        """Returns when requests are answered.

        Raises:
            OSError: If the address cannot be had.
            RuntimeError: If the application does not start.
        """
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()
        self._server.listening.wait(START_S)
        if not self._server.started:
            raise RuntimeError("The application did not start.")

    def stop(self) -> None:
        """Ends open requests and returns when the port is free again.

        Raises:
            RuntimeError: If the application keeps the server from ending.
        """
        if self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(self._grace_s + STOP_S)
        if self._thread.is_alive():
            raise RuntimeError("The application does not end.")
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, listener: socket.socket) -> None:
        with listener:
            try:
                self._server.run(sockets=[listener])
            finally:
                self._server.listening.set()


class EdgeServer(AppServer):
    """The edge, served.

    Args:
        settings: How the edge behaves.
        host: The address to listen on: a loopback one, unless clients and workers need a key.
        port: 0 lets the system choose one.
        log_level: Uvicorn's.

    Raises:
        OpenEdgeError: Anybody on the network could use the edge.
    """

    def __init__(
        self,
        settings: EdgeSettings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        log_level: str = "warning",
    ) -> None:
        self.settings = settings or EdgeSettings()
        guarded = self.settings.api_key and self.settings.worker_token
        if not (guarded or is_loopback(host)):
            raise OpenEdgeError(host)
        app = create_app(self.settings)
        self._edge: Edge = app.state.edge
        before_shutdown = self._edge.closing.set
        super().__init__(
            app, host=host, port=port, before_shutdown=before_shutdown, log_level=log_level
        )

    @property
    def local_url(self) -> str:
        """Where processes of this machine reach it, on whatever address it listens."""
        return self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")

    def call(self, what: Callable[[Edge], T]) -> T:
        """Does something with the edge in its own thread, and returns what that returned.

        Raises:
            RuntimeError: The server does not run.
        """
        if self._server.loop is None or self._thread is None:
            raise RuntimeError("The edge does not run.")

        async def do() -> T:
            return what(self._edge)

        return asyncio.run_coroutine_threadsafe(do(), self._server.loop).result(CALL_S)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
