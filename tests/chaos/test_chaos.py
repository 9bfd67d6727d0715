"""The short form of `make chaos`: whatever ends, hangs or breaks, every job has one honest end."""

import pytest

from chaos.measure import SHORT, run_suite
from chaos.scenarios import SUITES


# The real engine is loaded twice, and a lost job is waited for.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.short])
async def test_no_job_is_lost_or_answered_wrongly_or_twice(name: str) -> None:
    suite = SUITES[name]
    found = {
        outcome.scenario.name: list(outcome.faults())
        async for outcome in run_suite(suite, SHORT, suite.short, quick=True)
    }
    assert found == {scenario.name: [] for scenario in suite.short}
