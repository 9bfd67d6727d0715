"""The chaos suite notices what it is there to notice."""

import json
from collections import Counter
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chaos.load import Load, Verdict
from chaos.scenarios import KILLED, Outcome, Scenario, engine_killed

TOLERANT = Scenario("a fault", engine_killed, errors=True, repeats=True)


def error(code: int) -> dict[str, Any]:
    return {"status": "FAILED", "error": json.dumps({"code": code, "message": "no"})}


def answer(*numbers: float) -> dict[str, Any]:
    return {"status": "COMPLETED", "output": {"data": [{"embedding": [n, 1.0]} for n in numbers]}}


ENVELOPES = [
    (answer(0.0), Verdict.RIGHT),
    (answer(1.0), Verdict.WRONG),
    (answer(0.0, 0.0), Verdict.WRONG),
    (answer(), Verdict.WRONG),
    (error(503), Verdict.ERROR),
    (error(400), Verdict.WRONG),
    ({"status": "FAILED", "error": "a traceback"}, Verdict.WRONG),
    ({"status": "IN_PROGRESS"}, Verdict.LOST),
    ([], Verdict.LOST),
]


@pytest.mark.parametrize(("told", "verdict"), ENVELOPES)
async def test_each_end_of_a_job_is_told_from_the_others(told: Any, verdict: Verdict) -> None:
    envelopes = [answer(*range(256)), told]

    async def runsync(_request: web.Request) -> web.Response:
        return web.json_response(envelopes.pop(0)) if envelopes[0] else web.Response(status=500)

    app = web.Application()
    app.add_routes([web.post("/runsync", runsync)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}/") as session:
        load = Load(session, "m", clients=1)
        await load.learn()
        assert await load.send() is verdict
    await runner.cleanup()
    assert load.ledger.verdicts == {verdict: 1}
    assert load.ledger.right_since(0.0) == (verdict is Verdict.RIGHT)


OUTCOMES = [
    (Outcome(KILLED, 0, 2, Counter({Verdict.RIGHT: 2}), recovery_s=1.0), []),
    (Outcome(KILLED, 0, 2, Counter({Verdict.RIGHT: 2})), ["no recovery"]),
    (Outcome(KILLED, 0, 3, Counter({Verdict.RIGHT: 2}), recovery_s=1.0), ["1 lost"]),
    (Outcome(KILLED, 0, 1, Counter({Verdict.LOST: 1}), recovery_s=1.0), ["1 lost"]),
    (Outcome(KILLED, 0, 1, Counter({Verdict.WRONG: 1}), recovery_s=1.0), ["1 wrong"]),
    (Outcome(KILLED, 0, 1, Counter({Verdict.ERROR: 1}), recovery_s=1.0), ["1 errors"]),
    (Outcome(TOLERANT, 0, 1, Counter({Verdict.ERROR: 1}), recovery_s=1.0), []),
    (Outcome(TOLERANT, 0, 0, Counter(), taken_twice=1, recovery_s=1.0), ["1 taken twice"]),
    (Outcome(KILLED, 0, 0, Counter(), posted_again=1, recovery_s=1.0), ["1 posted again"]),
    (Outcome(TOLERANT, 0, 0, Counter(), posted_again=1, recovery_s=1.0), []),
]


@pytest.mark.parametrize(("outcome", "faults"), OUTCOMES)
def test_what_should_not_be_is_named(outcome: Outcome, faults: list[str]) -> None:
    assert list(outcome.faults()) == faults
