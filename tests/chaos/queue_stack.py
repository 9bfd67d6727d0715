"""Queue mode: the edge, a wire that can be cut, and supervised workers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from chaos.stack import MANY, Deliveries, Stack
from fakes.tcp_proxy import TcpProxy
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.state import EdgeSettings
from infinity_worker.edge.workers import worker_environment
from infinity_worker.serve.fleet import Fleet, FleetSettings
from processes import clean_environment, worker_command

_TICK_S = 0.05


@dataclass(kw_only=True)
class QueueStack(Stack):
    """An edge in this process, and its workers.

    Attributes:
        edge: in this process.
        wire: between the edge and the workers.
        fleet: the workers.
    """

    edge: EdgeServer
    wire: TcpProxy
    fleet: Fleet
    _handed_on: int = 0

    def workers(self) -> list[psutil.Process]:
        """See `Stack`."""
        processes = [slot.process for slot in self.fleet.slots]
        return [psutil.Process(process.pid) for process in processes if process is not None]

    def begin_anew(self) -> None:
        """See `Stack`."""
        self.wire.forget()
        self._handed_on = self._count_handed_on()

    def deliveries(self) -> Deliveries:
        """See `Stack`."""
        return Deliveries(
            sum(count > 1 for count in self.wire.accepted.values()),
            sum(count - 1 for count in self.wire.posted.values()),
            self._count_handed_on() - self._handed_on,
        )

    def _count_handed_on(self) -> int:
        return self.edge.call(lambda edge: edge.queue.counts()["retried"])


@asynccontextmanager
async def queue_workers(
    count: int, variables: Mapping[str, str], *, quick: bool
) -> AsyncIterator[Stack]:
    """An edge and so many workers."""
    lines: list[str] = []
    ping = {"RUNPOD_PING_INTERVAL": "1000"} if quick else {}
    settings = EdgeSettings(job_unnamed_s=1.5) if quick else EdgeSettings()
    with EdgeServer(settings) as edge:
        async with TcpProxy(edge.url) as wire:

            def environment(worker_id: str) -> dict[str, str]:
                platform = worker_environment(wire.url, "local", worker_id)
                return clean_environment(**platform, **variables) | ping

            fleet = Fleet(
                edge,
                worker_command(),
                environment,
                FleetSettings(count, restarts=int(MANY)),
                say=lines.append,
                output=lines.append,
            )
            fleet.start()
            ticking = asyncio.create_task(_tick(fleet))
            try:
                url = f"{edge.url}/v2/local/"
                yield QueueStack(url=url, lines=lines, edge=edge, wire=wire, fleet=fleet)
            finally:
                ticking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ticking
                # Elsewhere: the workers go on reporting over the wire.
                await asyncio.to_thread(fleet.stop)


async def _tick(fleet: Fleet) -> None:
    # In this thread, which lasts: the workers end with the one that started them.
    while True:
        fleet.tick()
        await asyncio.sleep(_TICK_S)
