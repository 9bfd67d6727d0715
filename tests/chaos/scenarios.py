"""What goes wrong under load, and how each of it is measured."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import aiohttp

from chaos.load import LONGEST_S, Load, Verdict
from chaos.stack import Stack, own_engine, real_engine, three_workers

_POLL_S = 0.02
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

    def lasting(self, plan: "Plan") -> float:
        """How long it stays wrong under a plan."""
        return min(self.lasts_s, plan.longest_fault_s)


@dataclass(frozen=True)
class Plan:
    """How much load, for how long.

    Attributes:
        clients: how many ask at a time.
        before_s: how long all is well at first.
        after_s: how long to go on after the fault, at least.
        longest_fault_s: faults that would last longer are over after so long.
    """

    clients: int
    before_s: float
    after_s: float
    longest_fault_s: float


FULL = Plan(clients=32, before_s=3.0, after_s=20.0, longest_fault_s=5.0)
SHORT = Plan(clients=16, before_s=0.3, after_s=0.3, longest_fault_s=1.0)


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs of one scenario.

    Attributes:
        scenario: which.
        lasted_s: how long it stayed wrong.
        sent: jobs.
        verdicts: how many ended how.
        codes: of the errors.
        taken_twice: jobs of which the edge took more than one result.
        posted_again: results that were posted again after a broken connection.
        handed_on: how often a job was given to another worker, or again.
        recovery_s: from the fault to the first right answer of a job that was sent after it.
        load_s: how long the engine took to load at its start, where it is the worker's own.
        reload_s: the same after the fault, where it was started again.
    """

    scenario: Scenario
    lasted_s: float
    sent: int
    verdicts: Counter[Verdict]
    codes: Counter[int] = field(default_factory=Counter)
    taken_twice: int = 0
    posted_again: int = 0
    handed_on: int = 0
    recovery_s: float | None = None
    load_s: float | None = None
    reload_s: float | None = None

    def faults(self) -> Iterator[str]:
        """What should not be; nothing where all is well."""
        lost = self.sent - sum(self.verdicts[each] for each in Verdict if each is not Verdict.LOST)
        counts = {
            "lost": lost,
            "wrong": self.verdicts[Verdict.WRONG],
            "taken twice": self.taken_twice,
            "errors": 0 if self.scenario.errors else self.verdicts[Verdict.ERROR],
            "posted again": 0 if self.scenario.repeats else self.posted_again,
        }
        yield from (f"{count} {name}" for name, count in counts.items() if count)
        if self.recovery_s is None:
            yield "no recovery"


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
    stack.worker().kill()
    yield


@asynccontextmanager
async def wire_cut(stack: Stack) -> AsyncIterator[None]:
    """All connections to the edge are reset again and again, and half of the time refused."""

    async def cut() -> None:
        while True:
            stack.wire.refuses = not stack.wire.refuses
            stack.wire.cut()
            await asyncio.sleep(_CUT_EVERY_S)

    cutting = asyncio.create_task(cut())
    try:
        yield
    finally:
        cutting.cancel()
        stack.wire.refuses = False


KILLED = Scenario("the engine is killed", engine_killed)
STOPPED = Scenario("the engine stops (SIGSTOP)", engine_stopped)
FAKE_FAULTS = (
    Scenario("the engine answers garbage", partial(engine_broken, "garbage")),
    Scenario("the engine answers 500", partial(engine_broken, "fail")),
    Scenario("the engine answers half a body", partial(engine_broken, "half")),
    Scenario("the engine's queue is full", partial(engine_in, "full"), lasts_s=5.0),
    Scenario(
        "the connections to the edge break again and again", wire_cut, lasts_s=5.0, repeats=True
    ),
)
FLEET_FAULTS = (
    # It may end in the middle of a report.
    Scenario("one worker of three is killed", worker_killed, repeats=True),
    Scenario(
        "somebody else's engine answers 500",
        partial(engine_in, "fail"),
        lasts_s=5.0,
        errors=True,
    ),
)


@dataclass(frozen=True)
class Suite:
    """Scenarios that one stack goes through in turn."""

    start: Callable[..., AbstractAsyncContextManager[Stack]]
    full: Sequence[Scenario]
    short: Sequence[Scenario]


SUITES: Mapping[str, Suite] = {
    "real engine": Suite(real_engine, (KILLED, STOPPED), (KILLED,)),
    "fake engine": Suite(own_engine, FAKE_FAULTS, (STOPPED, *FAKE_FAULTS)),
    "three workers, one fake engine": Suite(three_workers, FLEET_FAULTS, FLEET_FAULTS),
}


async def run_suite(
    suite: Suite, plan: Plan, scenarios: Sequence[Scenario], *, quick: bool
) -> AsyncGenerator[Outcome, None]:
    """Start a stack and let everything go wrong in turn.

    Args:
        suite: whose stack it is.
        plan: how much load.
        scenarios: of that suite.
        quick: whether deadlines are short, so that less time passes until they are over.
    """
    timeout = aiohttp.ClientTimeout(total=LONGEST_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        suite.start(quick=quick) as stack,
        aiohttp.ClientSession(
            f"{stack.edge.url}/v2/local/", timeout=timeout, connector=connector
        ) as session,
    ):
        load = Load(session, stack.model, plan.clients)
        await load.learn()
        for scenario in scenarios:
            yield await _run(scenario, stack, load, plan)


async def _run(scenario: Scenario, stack: Stack, load: Load, plan: Plan) -> Outcome:
    load.begin_anew()
    stack.wire.forget()
    ledger = load.ledger
    handed_on, printed = stack.handed_on(), len(stack.lines)
    running = asyncio.create_task(load.run())
    began = time.monotonic()
    await _until(lambda: _is_over(began, plan.before_s) and len(ledger.right) >= plan.clients)
    async with scenario.fault(stack):
        struck = time.monotonic()
        first = asyncio.create_task(load.send())
        await asyncio.sleep(scenario.lasting(plan))
    healed = time.monotonic()
    await _until(
        lambda: _is_over(healed, plan.after_s) and ledger.right_since(healed) >= plan.clients
    )
    load.end()
    await asyncio.gather(running, first)
    return Outcome(
        scenario,
        scenario.lasting(plan),
        ledger.sent,
        ledger.verdicts,
        ledger.codes,
        sum(count > 1 for count in stack.wire.accepted.values()),
        sum(count - 1 for count in stack.wire.posted.values()),
        stack.handed_on() - handed_on,
        ledger.recovery_s(struck),
        stack.first_load_s(),
        stack.reload_s(printed),
    )


async def _until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, but not longer than any job may take."""
    began = time.monotonic()
    while not (holds() or _is_over(began, LONGEST_S)):  # noqa: ASYNC110  # plain counters
        await asyncio.sleep(_POLL_S)


def _is_over(began: float, seconds: float) -> bool:
    return time.monotonic() - began >= seconds
