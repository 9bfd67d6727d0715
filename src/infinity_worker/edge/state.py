"""What one edge consists of: its settings, its queue, its workers and its webhooks."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import Request

from infinity_worker.edge.envelope import envelope
from infinity_worker.edge.job import Job, JobStatus
from infinity_worker.edge.jobs import JobQueue
from infinity_worker.edge.webhooks import Webhooks
from infinity_worker.edge.workers import Workers


class OpenAIErrors(StrEnum):
    """How the OpenAI route delivers an error."""

    PLATFORM = "platform"
    """A completed job is a 200 and a failed one a 500, whatever they say."""
    HTTP = "http"
    """The error's own `code` is the status."""


class OversizedResults(StrEnum):
    """What becomes of a job whose result is refused for its size."""

    COMPLETED = "completed"
    """It ends, without an output: what clients of the platform see (runpod-python#309)."""
    OPEN = "open"
    """It stays in progress: its worker may report something smaller."""


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """How an edge behaves; the defaults are the platform's where it documents them.

    Attributes:
        endpoint_id: The one endpoint that is served.
        api_key: What clients must send; None lets anybody in.
        worker_token: What workers must send; None lets anybody in.
        openai_errors: How the OpenAI route delivers an error.
        oversized_results: What becomes of a job whose result is refused for its size.
        empty_openai_input: Whether `openai_input` is `{}` for a request without a body; else it is
            missing. Which of them the platform sends is not known.
        poll_s: How long a worker's poll is held open; the SDK gives up after 90 s.
        runsync_s: How long `/runsync` waits unless it is told otherwise.
        openai_s: How long a request of the OpenAI route waits for its job.
        stream_s: How long `/stream` waits for a part while there is none.
        keep_s: How long the result of `/run` can be asked for.
        keep_sync_s: The same for `/runsync`.
        run_limit_bytes: The largest body of `/run`.
        runsync_limit_bytes: The largest body of `/runsync` and of the OpenAI route.
        result_limit_bytes: The largest result a worker may report.
        part_limit_bytes: The largest part of a result that is streamed.
        stream_limit_bytes: The most bytes of one job's parts that wait to be asked for.
        max_jobs: The most jobs held; beyond it finished ones go early and new ones are refused.
        max_bytes: The same for the bytes of inputs and results.
        max_attempts: How many workers may die of a job before it fails.
        worker_lost_s: A worker that pings and then is silent for this long loses its jobs.
        webhook_pause_s: The pause before a webhook is tried again.
        webhook_timeout_s: How long one try may take.
    """

    endpoint_id: str = "local"
    api_key: str | None = None
    worker_token: str | None = None
    openai_errors: OpenAIErrors = OpenAIErrors.PLATFORM
    oversized_results: OversizedResults = OversizedResults.COMPLETED
    empty_openai_input: bool = True
    poll_s: float = 20.0
    runsync_s: float = 90.0
    openai_s: float = 300.0
    stream_s: float = 1.0
    keep_s: float = 1800.0
    keep_sync_s: float = 60.0
    run_limit_bytes: int = 10_000_000
    runsync_limit_bytes: int = 20_000_000
    result_limit_bytes: int = 20_000_000
    part_limit_bytes: int = 1_000_000
    stream_limit_bytes: int = 20_000_000
    max_jobs: int = 100_000
    max_bytes: int = 2_000_000_000
    max_attempts: int = 3
    worker_lost_s: float = 20.0
    webhook_pause_s: float = 10.0
    webhook_timeout_s: float = 10.0


class Edge:
    """One running edge.

    Attributes:
        closing: Set when the server is about to stop: every open wait ends.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.queue = JobQueue(
            keep_s=settings.keep_s,
            keep_sync_s=settings.keep_sync_s,
            max_jobs=settings.max_jobs,
            max_bytes=settings.max_bytes,
            max_attempts=settings.max_attempts,
            on_end=self._ended,
        )
        self.workers = Workers(
            lost_s=settings.worker_lost_s,
            on_lost=self.queue.abandon,
            on_forgotten=self.queue.stops.forget,
        )
        self.webhooks = Webhooks(settings.webhook_pause_s, settings.webhook_timeout_s)
        self.closing = asyncio.Event()

    def retire(self, worker_id: str) -> bool:
        """Lets a worker have no more jobs and ends its polls; False where it has a job."""
        if self.queue.held_by(worker_id):
            return False
        self.workers.retire(worker_id)
        self.queue.release(worker_id)
        return True

    def _ended(self, job: Job) -> None:
        finished = job.status in {JobStatus.COMPLETED, JobStatus.FAILED}
        worker = self.workers.known().get(job.worker_id or "")
        if finished and worker is not None and job.finished_at is not None:
            worker.busy_at = job.finished_at
            worker.jobs += 1
            worker.items += _items(job.output)
            worker.latencies.append(job.finished_at - job.created_at)
        if job.options.webhook is not None:
            self.webhooks.send(job.options.webhook, envelope(job), job.input)


def edge_of(request: Request) -> Edge:
    """The edge that a request came to."""
    edge: Edge = request.app.state.edge
    return edge


def _items(output: Any) -> int:
    """How many embeddings a result has: the entries of its `data`."""
    if isinstance(output, list) and len(output) == 1:
        output = output[0]
    data = output.get("data") if isinstance(output, dict) else None
    return len(data) if isinstance(data, list) else 0
