"""What one edge consists of: its settings, its queue and its workers."""

import asyncio
from dataclasses import dataclass, field

from fastapi import Request

from infinity_worker.edge.jobs import JobQueue
from infinity_worker.edge.workers import Workers


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """How an edge behaves; the defaults are the platform's where it documents them.

    Attributes:
        endpoint_id: The one endpoint that is served.
        poll_s: How long a worker's poll is held open; the SDK gives up after 90 s.
        runsync_s: How long `/runsync` waits unless it is told otherwise.
        openai_s: How long a request of the OpenAI route waits for its job.
        run_limit_bytes: The largest body of `/run`.
        runsync_limit_bytes: The largest body of `/runsync` and of the OpenAI route.
        result_limit_bytes: The largest result a worker may report.
    """

    endpoint_id: str = "local"
    poll_s: float = 20.0
    runsync_s: float = 90.0
    openai_s: float = 300.0
    run_limit_bytes: int = 10_000_000
    runsync_limit_bytes: int = 20_000_000
    result_limit_bytes: int = 20_000_000


@dataclass(frozen=True, slots=True)
class Edge:
    """One running edge.

    Attributes:
        closing: Set when the server is about to stop: every open wait ends.
    """

    settings: EdgeSettings
    queue: JobQueue = field(default_factory=JobQueue)
    workers: Workers = field(default_factory=Workers)
    closing: asyncio.Event = field(default_factory=asyncio.Event)


def edge_of(request: Request) -> Edge:
    """The edge that a request came to."""
    edge: Edge = request.app.state.edge
    return edge
