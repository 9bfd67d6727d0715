"""The plan on paper: workers, concurrency, scaler and idle timeout for a load.

docs/scaling.md derives every formula here.
"""

import math
from dataclasses import dataclass

from infinity_worker.sizing.costs import EngineCost, Gpu, ServiceTime, SizingError

# A batcher keeps two requests under way (ENGINE_REQUESTS): one is worked on, one waits.
_REQUESTS_UNDER_WAY = 2
_MOST_CONCURRENCY = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """What callers send.

    Attributes:
        rate: requests a second.
        items: texts in a request.
        tokens: tokens of a text.
    """

    rate: float
    items: int = 1
    tokens: float = 32.0


@dataclass(frozen=True, slots=True)
class Aims:
    """What the plan is to keep.

    Attributes:
        utilisation: how much of a worker's capacity is to be used, below 1.
        max_wait_s: how long a job may wait in a worker's own slots when all are taken.
        cold_start_s: seconds from a worker's start to its first answer.
        batch_items: the most items in one engine request.
    """

    utilisation: float = 0.7
    max_wait_s: float = 2.0
    cold_start_s: float = 20.0
    batch_items: int = 128


@dataclass(frozen=True, slots=True)
class Plan:
    """What to set, for one kind of machine.

    Attributes:
        gpu: the kind.
        capacity: requests a second that one worker can take at most.
        workers: how many for the load.
        utilisation: how much of their capacity the load then uses.
        latency_s: mean seconds of a request in a worker.
        batch: mean items in an engine request.
        concurrency: `RUNPOD_MAX_CONCURRENCY`.
        requests_per_worker: the scaler's value, by request count.
        idle_timeout_s: the endpoint's idle timeout.
        cost_per_hour: of these workers.
    """

    gpu: Gpu
    capacity: float
    workers: int
    utilisation: float
    latency_s: float
    batch: float
    concurrency: int
    requests_per_worker: int
    idle_timeout_s: int
    cost_per_hour: float


def plan(load: Load, cost: EngineCost, gpu: Gpu, aims: Aims) -> Plan:
    """Size one kind of machine for a load.

    Raises:
        SizingError: a figure is impossible.
    """
    _check(load, aims)
    service = cost.on(gpu.speed, load.tokens)
    largest = max(aims.batch_items, load.items)
    if service.of(largest) <= 0:
        raise SizingError("the costs are all 0")
    capacity = service.items_per_s(largest) / load.items
    workers = max(1, math.ceil(load.rate / (capacity * aims.utilisation)))
    rate = load.rate / workers
    batch = batch_at(rate * load.items, service, largest, load.items)
    latency_s = 1.5 * service.of(math.ceil(batch))
    # By Little's law, at the utilisation that is aimed at; that is when one more is wanted.
    aimed = capacity * aims.utilisation
    aimed_batch = batch_at(aimed * load.items, service, largest, load.items)
    in_progress = aimed * 1.5 * service.of(math.ceil(aimed_batch))
    return Plan(
        gpu=gpu,
        capacity=capacity,
        workers=workers,
        utilisation=load.rate / (workers * capacity),
        latency_s=latency_s,
        batch=batch,
        concurrency=_concurrency(capacity, largest, load, aims),
        requests_per_worker=max(1, round(in_progress)),
        idle_timeout_s=max(1, math.ceil(aims.cold_start_s)),
        cost_per_hour=workers * gpu.price_per_s * 3_600,
    )


def batch_at(items_per_s: float, service: ServiceTime, largest: int, smallest: int = 1) -> float:
    """The mean size of an engine request at a rate: what arrives while the one before is worked on.

    It solves `k = rate · (request_s + item_s · k)`, within the limits.
    """
    spare = 1.0 - items_per_s * service.item_s
    if spare <= 0:
        return float(largest)
    return min(max(items_per_s * service.request_s / spare, float(smallest)), float(largest))


def _concurrency(capacity: float, largest: int, load: Load, aims: Aims) -> int:
    """Enough slots for full engine requests, and no more than can be answered in `max_wait_s`."""
    full = math.ceil(_REQUESTS_UNDER_WAY * largest / load.items)
    in_time = math.floor(capacity * aims.max_wait_s)
    return max(_REQUESTS_UNDER_WAY, min(full, in_time, _MOST_CONCURRENCY))


def _check(load: Load, aims: Aims) -> None:
    if not (load.rate > 0 and load.items >= 1 and load.tokens >= 0):
        raise SizingError("the rate must be more than 0, with an item or more in each request")
    if not 0 < aims.utilisation < 1:
        raise SizingError("the utilisation must be between 0 and 1")
    if not (aims.max_wait_s > 0 and aims.cold_start_s >= 0 and aims.batch_items >= 1):
        raise SizingError("waits and sizes must be more than 0")
