"""Lets things go wrong under load, and measures what becomes of the jobs."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp

from chaos.bounds import LONGEST_S, until
from chaos.load import Load, Verdict
from chaos.scenarios import Scenario, Suite
from chaos.stack import Deliveries, Stack


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

    def lasting(self, scenario: Scenario) -> float:
        """How long something stays wrong."""
        return min(scenario.lasts_s, self.longest_fault_s)


FULL = Plan(clients=32, before_s=3.0, after_s=20.0, longest_fault_s=5.0)
SHORT = Plan(clients=16, before_s=0.3, after_s=0.3, longest_fault_s=1.0)


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs of one scenario; over HTTP each request is a job.

    Attributes:
        scenario: which.
        lasted_s: how long it stayed wrong.
        sent: jobs.
        verdicts: how many ended how.
        codes: of the errors.
        deliveries: what the queue did; None where there is none.
        recovery_s: from the fault to the first right answer of a job that was sent after it.
        load_s: how long the engine took to load at its start, where it is the worker's own.
        reload_s: the same after the fault, where it was started again.
    """

    scenario: Scenario
    lasted_s: float
    sent: int
    verdicts: Counter[Verdict]
    codes: Counter[int] = field(default_factory=Counter)
    deliveries: Deliveries | None = None
    recovery_s: float | None = None
    load_s: float | None = None
    reload_s: float | None = None

    def lost(self) -> int:
        """How many jobs have no end."""
        return self.sent - sum(self.verdicts[each] for each in Verdict if each is not Verdict.LOST)

    def faults(self) -> Iterator[str]:
        """What should not be; nothing where all is well."""
        delivered = self.deliveries or Deliveries()
        counts = {
            "lost": self.lost(),
            "wrong": self.verdicts[Verdict.WRONG],
            "taken twice": delivered.taken_twice,
            "errors": 0 if self.scenario.errors else self.verdicts[Verdict.ERROR],
            "posted again": 0 if self.scenario.repeats else delivered.posted_again,
        }
        yield from (f"{count} {name}" for name, count in counts.items() if count)
        if self.recovery_s is None:
            yield "no recovery"


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
        aiohttp.ClientSession(stack.url, timeout=timeout, connector=connector) as session,
    ):
        load = Load(suite.caller(session, stack.model), plan.clients)
        await load.learn()
        for scenario in scenarios:
            yield await _run(scenario, stack, load, plan)


async def _run(scenario: Scenario, stack: Stack, load: Load, plan: Plan) -> Outcome:
    load.begin_anew()
    stack.begin_anew()
    ledger = load.ledger
    printed = len(stack.lines)
    running = asyncio.create_task(load.run())
    began = time.monotonic()
    # Where the bound is over, what was counted says what is the matter.
    with contextlib.suppress(TimeoutError):
        await until(lambda: _is_over(began, plan.before_s) and len(ledger.right) >= plan.clients)
    async with scenario.fault(stack):
        struck = time.monotonic()
        first = asyncio.create_task(load.send())
        await asyncio.sleep(plan.lasting(scenario))
    healed = time.monotonic()
    with contextlib.suppress(TimeoutError):
        await until(
            lambda: _is_over(healed, plan.after_s) and ledger.right_since(healed) >= plan.clients
        )
    load.end()
    await asyncio.gather(running, first)
    return Outcome(
        scenario,
        plan.lasting(scenario),
        ledger.sent,
        ledger.verdicts,
        ledger.codes,
        stack.deliveries(),
        ledger.recovery_s(struck),
        stack.first_load_s(),
        stack.reload_s(printed),
    )


def _is_over(began: float, seconds: float) -> bool:
    return time.monotonic() - began >= seconds
