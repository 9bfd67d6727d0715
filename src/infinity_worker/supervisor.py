"""Keeps the engine alive: finds out that it crashed or hangs, ends it if need be, starts it again.

A request that fails is a question to `diagnose`. It asks the engine for a tiny embedding, a canary;
an engine that does not answer that either hangs (Infinity's threads end at odd inputs, while its
`/health` goes on saying that all is well) and is killed. Everything else follows from its exit.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import NoReturn

from infinity_worker.backoff import Backoff
from infinity_worker.engine import Engine, EngineLostError, EngineStartError
from infinity_worker.infinity_client import InfinityClient, InfinityUnavailable
from infinity_worker.probes import is_embedding
from infinity_worker.recovery import Finding
from infinity_worker.settings import Settings

log = logging.getLogger(__name__)

CANARY_S = 10.0
_EXIT_KNOWN_S = 0.5
_MEMORY_CHECK_S = 1.0
_MB = 1_000_000


class CanaryWatch:
    """Watches an engine that somebody else runs, which cannot be started again from here.

    Args:
        client: the engine's.
        canary_s: how long a canary may take.
    """

    def __init__(self, client: InfinityClient, canary_s: float = CANARY_S) -> None:
        self.life = 0
        self._is_silent = False
        self._client = client
        self._canary_s = canary_s
        self._canaries: dict[str, asyncio.Task[bool]] = {}
        self._silent_model = ""
        self._look: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Always: nothing is known of its starts."""
        return True

    @property
    def embeds(self) -> bool:
        """Whether the engine embeds, as far as is known. Silence is looked into again at each call.

        It is asked by health checks: who runs the engine may have started it again.
        """
        if self._is_silent:
            self._look_again()
        return not self._is_silent

    async def ready(self) -> None:
        """Return at once."""

    async def run(self) -> None:
        """Do nothing until cancelled: there is nothing to keep alive."""
        await asyncio.Event().wait()

    async def diagnose(self, model: str, life: int) -> Finding:  # noqa: ARG002  # it has but one
        """Look whether the engine embeds."""
        self._silent_model = model
        self._is_silent = not await self._embeds(model)
        if not self._is_silent:
            return Finding.ANSWERS
        log.error("the engine does not answer, and is not this worker's to restart (INFINITY_URL)")
        return Finding.SILENT

    async def _embeds(self, model: str) -> bool:
        """Send a canary, one at a time for a model, however many ask and give up asking."""
        canary = self._canaries.get(model)
        if canary is None:
            canary = asyncio.create_task(is_embedding(self._client, model, self._canary_s))
            self._canaries[model] = canary
            canary.add_done_callback(lambda _canary: self._canaries.pop(model))
        return await asyncio.shield(canary)

    def _look_again(self) -> None:
        """Send a canary after an engine that was silent; it is known later how that ends."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        self._is_silent = not await self._embeds(self._silent_model)


class Supervisor(CanaryWatch):
    """Watches the worker's own engine, from the moment that it is ready.

    Args:
        engine: started, and ready by the time that `run` is.
        client: the engine's.
        settings: how much memory it may take, and how often it may be started again.
        canary_s: how long a canary may take.
    """

    def __init__(
        self,
        engine: Engine,
        client: InfinityClient,
        settings: Settings,
        canary_s: float = CANARY_S,
    ) -> None:
        super().__init__(client, canary_s)
        self._engine = engine
        self._settings = settings
        self._restarts = RestartLimit(
            settings.engine_max_restarts, settings.engine_restart_window_s
        )
        self._is_running = False
        self._is_lost = False
        self._why_ended = ""
        # One is set while the other is not; both once the engine is lost.
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._up.set()

    @property
    def is_ready(self) -> bool:
        """Whether the engine embeds, as far as is known."""
        return self._up.is_set() and not self._is_lost

    @property
    def embeds(self) -> bool:
        """The same: this engine's end is always known."""
        return self.is_ready

    async def ready(self) -> None:
        """Wait until the engine is back.

        Raises:
            InfinityUnavailable: it will not come back.
        """
        await self._up.wait()
        if self._is_lost:
            raise InfinityUnavailable("the engine keeps failing: this worker ends, try again")

    async def diagnose(self, model: str, life: int) -> Finding:
        """Look whether the engine embeds; if it neither does nor has ended, kill it."""
        if not self._is_running:
            return await super().diagnose(model, life)
        if self.life != life or not self.is_ready:
            return Finding.CRASHED
        if await self._embeds(model):
            # The life that answered may be the next one.
            return Finding.ANSWERS if self.life == life else Finding.CRASHED
        with contextlib.suppress(TimeoutError):
            # Its connections break a moment before its end is known.
            async with asyncio.timeout(_EXIT_KNOWN_S):
                await self._down.wait()
        if self.life == life:
            self._end(f"it did not embed with {model} any more")
            await self._down.wait()
        return Finding.CRASHED

    async def run(self) -> NoReturn:
        """Start the engine again whenever it ends.

        Raises:
            EngineLostError: it ended too often.
        """
        self._is_running = True
        memory = asyncio.create_task(self._limit_memory(self._settings.engine_memory_mb * _MB))
        try:
            while True:
                how = await self._engine.exited()
                self.life += 1
                self._up.clear()
                self._down.set()
                log.error("the engine ended (%s): starting it again", self._why_ended or how)
                self._why_ended = ""
                await self._restart()
                self._down.clear()
                self._up.set()
        finally:
            memory.cancel()
            self._is_lost = True
            self._up.set()
            self._down.set()

    def _end(self, why: str) -> None:
        self._why_ended = why
        self._engine.kill()

    async def _restart(self) -> None:
        backoff = Backoff()
        while True:
            if not self._restarts.allows(time.monotonic()):
                raise EngineLostError(
                    f"the engine was started again {self._restarts}, and ended again: giving up"
                )
            await asyncio.sleep(backoff.next_s())
            began = time.monotonic()
            try:
                self._engine.start()
                await self._engine.ready()
            except EngineStartError as error:
                log.error("%s", error)  # noqa: TRY400  # the message says it all
                self._engine.kill()
                with contextlib.suppress(EngineStartError):
                    await self._engine.exited()
                continue
            log.warning("the engine is back after %.1f s", time.monotonic() - began)
            return

    async def _limit_memory(self, limit: int) -> None:
        while limit:
            await asyncio.sleep(_MEMORY_CHECK_S)
            used = await asyncio.to_thread(self._engine.memory_bytes)
            if used > limit and self.is_ready:
                self._end(f"it took {used // _MB} MB, more than ENGINE_MEMORY_MB={limit // _MB}")


class RestartLimit:
    """Allows so many restarts within a window of time.

    Args:
        most: how many; 0 allows none.
        window_s: within how many seconds.
    """

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._times: deque[float] = deque()

    def __str__(self) -> str:
        return f"{self._most} times within {self._window_s:.0f} s"

    def allows(self, now: float) -> bool:
        """Tell whether one more is allowed now, and count it if so."""
        while self._times and self._times[0] <= now - self._window_s:
            self._times.popleft()
        if len(self._times) >= self._most:
            return False
        self._times.append(now)
        return True
