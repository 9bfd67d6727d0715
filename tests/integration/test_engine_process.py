"""The engine's process: start, readiness, failure, end. The program is the fake engine."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fakes.fake_engine import MODELS
from infinity_worker.engine import Engine, EngineStartError, EngineState, wait_until_embedding
from infinity_worker.settings import Settings
from processes import write_engine_program

MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[MakeEngine]:
    program = write_engine_program(tmp_path)
    engines: list[Engine] = []

    def make(**variables: str) -> Engine:
        basics = {"MODEL_NAMES": "m", "ENGINE_BIN": str(program), "INFINITY_PORT": "0"}
        engines.append(Engine(Settings.from_env(basics | {"PATH": os.environ["PATH"]} | variables)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop()


async def test_it_is_ready_once_every_model_embeds(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.start()
    starting = engine.state
    assert [model.name for model in await engine.ready()] == list(MODELS)
    assert (starting, engine.state) == (EngineState.STARTING, EngineState.READY)


async def test_stopping_leaves_no_process(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.start()
    await engine.ready()
    pid = engine.pid
    assert pid is not None
    engine.stop()
    assert engine.state is EngineState.DEAD
    assert not psutil.pid_exists(pid)
    engine.stop()


async def test_one_that_ignores_sigterm_is_killed(make_engine: MakeEngine) -> None:
    engine = make_engine(FAKE_ENGINE_MODE="ignore-term")
    engine.start()
    await engine.ready()
    pid = engine.pid
    assert pid is not None
    engine.stop()
    assert not psutil.pid_exists(pid)


async def test_a_flood_of_output_does_not_block_it(make_engine: MakeEngine) -> None:
    engine = make_engine(FAKE_ENGINE_MODE="flood")
    engine.start()
    assert len(await engine.ready()) == len(MODELS)


async def test_dying_while_loading_is_reported_with_cause_and_last_lines(
    make_engine: MakeEngine,
) -> None:
    words = "OSError: org/x is not a local folder and is not a valid model identifier"
    engine = make_engine(FAKE_ENGINE_MODE="crash", FAKE_ENGINE_LAST_WORDS=words)
    engine.start()
    with pytest.raises(EngineStartError, match="the model was not found") as caught:
        await engine.ready()
    assert words in str(caught.value)
    assert engine.state is EngineState.DEAD


async def test_a_model_that_does_not_answer_is_a_failed_start(make_engine: MakeEngine) -> None:
    engine = make_engine(FAKE_ENGINE_MODE="fail")
    engine.start()
    with pytest.raises(EngineStartError, match="a model does not answer"):
        await engine.ready()


async def test_loading_is_bounded(make_engine: MakeEngine) -> None:
    engine = make_engine(FAKE_ENGINE_MODE="hang", ENGINE_START_TIMEOUT="1")
    engine.start()
    with pytest.raises(EngineStartError, match="ENGINE_START_TIMEOUT"):
        await engine.ready()


def test_a_missing_program_says_what_to_do(make_engine: MakeEngine, tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="make setup"):
        make_engine(ENGINE_BIN=str(tmp_path / "nothing")).start()


def test_no_model_says_what_to_do(make_engine: MakeEngine) -> None:
    with pytest.raises(EngineStartError, match="MODEL_NAMES"):
        make_engine(MODEL_NAMES="").start()


async def test_a_taken_port_is_named_before_anything_is_loaded(make_engine: MakeEngine) -> None:
    first = make_engine()
    first.start()
    await first.ready()
    with pytest.raises(EngineStartError, match=f"port {first.port} is in use"):
        make_engine(INFINITY_PORT=str(first.port)).start()


async def test_a_server_that_somebody_else_runs_is_waited_for(make_engine: MakeEngine) -> None:
    theirs = make_engine()
    settings = Settings.from_env({"INFINITY_URL": theirs.url})
    waiting = asyncio.ensure_future(wait_until_embedding(theirs.url, settings))
    theirs.start()
    assert [model.name for model in await waiting] == list(MODELS)
