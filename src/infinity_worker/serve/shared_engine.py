"""The engine that several workers share: kept alive by `serve`, as a worker keeps its own alive."""

import asyncio
import threading

from infinity_worker.engine import Engine, EngineLostError
from infinity_worker.infinity_client import InfinityClient
from infinity_worker.serve.processes import family_rss
from infinity_worker.settings import Settings
from infinity_worker.supervisor import Supervisor

_STOP_S = 20.0


class SharedEngine:
    """An engine in the care of a thread of its own. Call `start`, then `stop` on every way out.

    It is started again when it ends or takes too much memory. One that hangs is not noticed: only
    those know that wait for it.

    Attributes:
        lost: Why it will not be started again; empty while it lives.
    """

    def __init__(self, settings: Settings) -> None:
        self.lost = ""
        self._settings = settings
        self._engine = Engine(settings)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._engine.url

    def start(self) -> None:
        """Load the models; returns when each embeds.

        Raises:
            EngineStartError: it did not come up.
        """
        self._engine.start()
        asyncio.run(self._engine.ready())
        began = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(began,), name="shared-engine")
        self._thread.start()
        began.wait()

    def stop(self) -> None:
        """End it. Safe to call again, and where it was not started."""
        if self._thread is not None and self._loop is not None and self._watching is not None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._watching.cancel)
            self._thread.join(_STOP_S)
        self._engine.stop()

    def rss(self) -> int:
        """Bytes of memory of all of its processes; 0 where there are none."""
        pid = self._engine.pid
        return 0 if pid is None else family_rss(pid)

    def _run(self, began: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._watching = self._loop.create_task(self._watch())
            began.set()
            self._loop.run_until_complete(asyncio.wait({self._watching}))
        # The engine ends with the thread that started it: see `parent_death`.
        self._engine.stop()

    async def _watch(self) -> None:
        async with InfinityClient(self.url, api_key=self._settings.infinity_api_key) as client:
            try:
                await Supervisor(self._engine, client, self._settings).run()
            except EngineLostError as error:
                self.lost = str(error)
