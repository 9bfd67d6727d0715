"""What goes wrong under load, in which stacks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from chaos.bounds import until
from chaos.callers import BalancedCaller, Caller, HttpCaller, QueueCaller
from chaos.http_stack import balanced_workers, one_http_worker
from chaos.queue_stack import QueueStack, queue_workers
from chaos.stack import Stack, own_engine, real_engine, shared_engine

_CUT_EVERY_S = 0.05


@dataclass(frozen=True)
class Scenario:
    """One thing that goes wrong.

    Attributes:
        name: for the table.
        fault: makes it go wrong when entered, and right again when left.
        lasts_s: how long it stays wrong; a crash and its like last no time.
        errors: whether jobs may end with an error.
        repeats: whether results may have to be posted again.
    """

    name: str
    fault: Callable[[Stack], AbstractAsyncContextManager[None]]
    lasts_s: float = 0.0
    errors: bool = False
    repeats: bool = False


@asynccontextmanager
async def engine_killed(stack: Stack) -> AsyncIterator[None]:
    """SIGKILL."""
    stack.engine().kill()
    yield


@asynccontextmanager
async def engine_stopped(stack: Stack) -> AsyncIterator[None]:
    """SIGSTOP: it keeps its connections and answers nothing."""
    stack.engine().suspend()
    yield


@asynccontextmanager
async def engine_in(mode: str, stack: Stack) -> AsyncIterator[None]:
    """One of the fake engine's modes, until it is over or the engine was started again."""
    await stack.set_engine(mode)
    yield
    await stack.set_engine("ok")


@asynccontextmanager
async def engine_broken(mode: str, stack: Stack) -> AsyncIterator[None]:
    """One of the fake engine's modes; only another engine process is well again."""
    await stack.set_engine(mode)
    yield


@asynccontextmanager
async def worker_killed(stack: Stack) -> AsyncIterator[None]:
    """SIGKILL."""
    stack.workers()[0].kill()
    yield


@asynccontextmanager
async def workers_told_to_end(count: int, stack: Stack) -> AsyncIterator[None]:
    """SIGTERM, to each once the one before has been replaced; left when the last has ended."""
    workers = stack.workers()[:count]
    printed = len(stack.lines)

    async def replaced(number: int) -> None:
        await until(lambda: stack.starts(printed) >= number)

    workers[0].terminate()
    yield
    for number, worker in enumerate(workers[1:], start=1):
        await replaced(number)
        worker.terminate()
    await until(lambda: not workers[-1].is_running())


@asynccontextmanager
async def wire_cut(stack: Stack) -> AsyncIterator[None]:
    """All connections to the edge are reset again and again, and half of the time refused."""
    assert isinstance(stack, QueueStack)
    wire = stack.wire

    async def cut() -> None:
        while True:
            wire.refuses = not wire.refuses
            wire.cut()
            await asyncio.sleep(_CUT_EVERY_S)

    cutting = asyncio.create_task(cut())
    try:
        yield
    finally:
        cutting.cancel()
        wire.refuses = False


KILLED = Scenario("the engine is killed", engine_killed)
STOPPED = Scenario("the engine stops (SIGSTOP)", engine_stopped)
FULL_QUEUE = Scenario("the engine's queue is full", partial(engine_in, "full"), lasts_s=5.0)
ENGINE_FAULTS = (
    Scenario("the engine answers garbage", partial(engine_broken, "garbage")),
    Scenario("the engine answers 500", partial(engine_broken, "fail")),
    Scenario("the engine answers half a body", partial(engine_broken, "half")),
    FULL_QUEUE,
)
WIRE_CUT = Scenario(
    "the connections to the edge break again and again", wire_cut, lasts_s=5.0, repeats=True
)
# It may end in the middle of a report.
WORKER_KILLED = Scenario("one worker of three is killed", worker_killed, repeats=True)
# No queue has another copy of what it was doing.
BALANCED_KILLED = replace(WORKER_KILLED, errors=True)
WORKER_TOLD = Scenario("one worker of three is told to end", partial(workers_told_to_end, 1))
WORKERS_TOLD = Scenario(
    "three workers are told to end, one after the other", partial(workers_told_to_end, 3)
)
FOREIGN_FAULT = Scenario(
    "somebody else's engine answers 500", partial(engine_in, "fail"), lasts_s=5.0, errors=True
)


@dataclass(frozen=True)
class Suite:
    """Scenarios that one stack goes through in turn.

    Attributes:
        mode: `queue` or `http`, as in `WORKER_MODE`.
        start: the stack; takes whether deadlines are short.
        caller: how clients ask.
        full: all of them.
        short: those of `make test`.
    """

    mode: str
    start: Callable[..., AbstractAsyncContextManager[Stack]]
    caller: type[Caller]
    full: Sequence[Scenario]
    short: Sequence[Scenario]


_ONE_TAKER = partial(queue_workers, 1)
_THREE_TAKERS = partial(queue_workers, 3)
_THREE_BALANCED = partial(balanced_workers, 3)

SUITES: Mapping[str, Suite] = {
    "queue, real engine": Suite(
        "queue",
        partial(real_engine, _ONE_TAKER),
        QueueCaller,
        full=(KILLED, STOPPED),
        short=(KILLED,),
    ),
    "queue, fake engine": Suite(
        "queue",
        partial(own_engine, _ONE_TAKER),
        QueueCaller,
        full=(*ENGINE_FAULTS, WIRE_CUT),
        short=(STOPPED, *ENGINE_FAULTS, WIRE_CUT),
    ),
    "queue, three workers, one fake engine": Suite(
        "queue",
        partial(shared_engine, _THREE_TAKERS),
        QueueCaller,
        full=(WORKERS_TOLD, WORKER_KILLED, FOREIGN_FAULT),
        short=(WORKER_KILLED, FOREIGN_FAULT),
    ),
    "http, real engine": Suite(
        "http",
        partial(real_engine, one_http_worker),
        HttpCaller,
        full=(KILLED, STOPPED),
        short=(),
    ),
    "http, fake engine": Suite(
        "http",
        partial(own_engine, one_http_worker),
        HttpCaller,
        full=ENGINE_FAULTS,
        short=(KILLED, FULL_QUEUE),
    ),
    "http, three workers, one fake engine": Suite(
        "http",
        partial(shared_engine, _THREE_BALANCED),
        BalancedCaller,
        full=(WORKERS_TOLD, BALANCED_KILLED, FOREIGN_FAULT),
        short=(WORKER_TOLD, BALANCED_KILLED, FOREIGN_FAULT),
    ),
}
