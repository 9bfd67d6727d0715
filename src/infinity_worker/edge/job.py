"""One job: what was asked, what became of it, and the parts that it has streamed."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson


class JobStatus(StrEnum):
    """The states of a job, as the platform spells them."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a caller may ask for besides the input; the defaults are the platform's.

    Attributes:
        execution_timeout_s: How long a worker may run the job.
        ttl_s: After this long a job that has not finished is gone.
        webhook: Where the finished job is posted.
    """

    execution_timeout_s: float = 600.0
    ttl_s: float = 86_400.0
    webhook: str | None = None


DEFAULT_OPTIONS = JobOptions()


@dataclass(slots=True)
class Stream:
    """The parts of a result that nobody has asked for yet.

    Attributes:
        size: Their bytes.
        news: Set when a part came, or when no more will come.
    """

    parts: list[orjson.Fragment] = field(default_factory=list)
    size: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class Job:
    """One unit of work. Times are readings of the queue's clock, in seconds.

    Attributes:
        input: What the worker gets: anything orjson can write, an `orjson.Fragment` too.
        number: Its place in the line of all jobs ever submitted.
        size: Bytes of its input and of its result, for the bound on what is held.
        attempts: How many workers it was handed to.
        finished: Set when the job has reached its last state, or is gone.
        gone: Whether it is over without a last state: its time to live has passed, or the queue
            was purged.
        lapse: Ends its time to live, while there is one to end.
        deadline: Ends its execution, while a worker runs it.
    """

    id: str
    input: Any
    sync: bool
    number: int
    created_at: float
    options: JobOptions = DEFAULT_OPTIONS
    size: int = 0
    status: JobStatus = JobStatus.IN_QUEUE
    output: Any = None
    error: Any = None
    started_at: float | None = None
    finished_at: float | None = None
    worker_id: str | None = None
    attempts: int = 0
    gone: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    stream: Stream | None = None
    lapse: asyncio.TimerHandle | None = None
    deadline: asyncio.TimerHandle | None = None
