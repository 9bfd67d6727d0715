"""The chaos suite notices what it is there to notice."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chaos.callers import BalancedCaller, Caller, HttpCaller, QueueCaller
from chaos.load import Load, Verdict
from chaos.measure import Outcome
from chaos.scenarios import KILLED, Scenario, engine_killed
from chaos.stack import Deliveries

TOLERANT = Scenario("a fault", engine_killed, errors=True, repeats=True)


def completed(*numbers: float) -> dict[str, Any]:
    return {"status": "COMPLETED", "output": answer(*numbers)}


def answer(*numbers: float) -> dict[str, Any]:
    return {"data": [{"embedding": [number, 1.0]} for number in numbers]}


def failed(code: int) -> dict[str, Any]:
    return {"status": "FAILED", "error": json.dumps(error(code)["error"])}


def error(code: int) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "engine_error", "code": code}}


ENDS: list[tuple[type[Caller], int, Any, Verdict]] = [
    (QueueCaller, 200, completed(0.0), Verdict.RIGHT),
    (QueueCaller, 200, completed(1.0), Verdict.WRONG),
    (QueueCaller, 200, completed(0.0, 0.0), Verdict.WRONG),
    (QueueCaller, 200, completed(), Verdict.WRONG),
    (QueueCaller, 200, failed(503), Verdict.ERROR),
    (QueueCaller, 200, failed(400), Verdict.WRONG),
    (QueueCaller, 200, {"status": "FAILED", "error": "a traceback"}, Verdict.WRONG),
    (QueueCaller, 200, {"status": "COMPLETED", "output": None}, Verdict.WRONG),
    (QueueCaller, 200, {"status": "IN_PROGRESS"}, Verdict.LOST),
    (QueueCaller, 500, None, Verdict.LOST),
    (HttpCaller, 200, answer(0.0), Verdict.RIGHT),
    (HttpCaller, 200, answer(1.0), Verdict.WRONG),
    (HttpCaller, 200, answer(), Verdict.WRONG),
    (HttpCaller, 200, [], Verdict.WRONG),
    (HttpCaller, 200, error(503), Verdict.WRONG),
    (HttpCaller, 503, error(503), Verdict.ERROR),
    (HttpCaller, 500, error(503), Verdict.WRONG),
    (HttpCaller, 400, error(400), Verdict.WRONG),
    (HttpCaller, 503, {"error": {"code": 503}}, Verdict.WRONG),
    (HttpCaller, 502, {"error": "The worker broke off."}, Verdict.WRONG),
    (HttpCaller, 500, None, Verdict.WRONG),
    (HttpCaller, 0, None, Verdict.LOST),
    (BalancedCaller, 200, answer(0.0), Verdict.RIGHT),
    (BalancedCaller, 503, error(503), Verdict.ERROR),
    (BalancedCaller, 502, {"error": "The worker broke off."}, Verdict.ERROR),
    (BalancedCaller, 503, {"error": "The worker broke off."}, Verdict.WRONG),
    (BalancedCaller, 400, {"error": "No worker was available."}, Verdict.WRONG),
]


@asynccontextmanager
async def server_of(answers: list[tuple[int, Any]]) -> AsyncIterator[str]:
    """Gives these answers in turn: a status, and JSON or nothing; without a status it hangs up."""

    async def give(request: web.Request) -> web.Response:
        status, told = answers.pop(0)
        if not status:
            assert request.transport is not None
            request.transport.close()
        return (
            web.json_response(told, status=status)
            if told is not None
            else web.Response(status=status or 500)
        )

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", give)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("caller", "status", "told", "verdict"), ENDS)
async def test_each_end_of_a_job_is_told_from_the_others(
    caller: type[Caller], status: int, told: Any, verdict: Verdict
) -> None:
    right = completed if caller is QueueCaller else answer
    answers = [(200, right(*range(256))), (status, told)]
    async with server_of(answers) as url, aiohttp.ClientSession(url) as session:
        load = Load(caller(session, "m"), clients=1)
        await load.learn()
        assert await load.send() is verdict
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
    (
        Outcome(TOLERANT, 0, 0, Counter(), deliveries=Deliveries(taken_twice=1), recovery_s=1.0),
        ["1 taken twice"],
    ),
    (
        Outcome(KILLED, 0, 0, Counter(), deliveries=Deliveries(posted_again=1), recovery_s=1.0),
        ["1 posted again"],
    ),
    (Outcome(TOLERANT, 0, 0, Counter(), deliveries=Deliveries(posted_again=1), recovery_s=1.0), []),
]


@pytest.mark.parametrize(("outcome", "faults"), OUTCOMES)
def test_what_should_not_be_is_named(outcome: Outcome, faults: list[str]) -> None:
    assert list(outcome.faults()) == faults
