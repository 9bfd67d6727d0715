"""What `infinity-worker doctor` says of what it found."""

from dataclasses import replace
from typing import Any

import pytest

from infinity_worker.diagnosis import (
    Engine,
    Environment,
    Facts,
    Finding,
    Gpu,
    ModelPlace,
    PortUser,
    Status,
    diagnose,
)

OK, NOTE, PROBLEM = Status
ENGINE = Engine(
    environment=Environment.MATCHES,
    tried=True,
    models=(("minilm", ModelPlace.FOLDER), ("bge", ModelPlace.CACHE)),
)
HEALTHY = Facts(
    uv="0.13.9",
    worker_environment=Environment.MATCHES,
    engine=ENGINE,
    memory_mb=8_000,
    disk_mb=50_000,
)


def finding(facts: Facts, check: str) -> Finding:
    (found,) = [one for one in diagnose(facts) if one.check.startswith(check)]
    return found


def test_a_healthy_machine_has_nothing_wrong_and_nothing_to_do() -> None:
    findings = diagnose(HEALTHY)
    assert {one.status for one in findings} == {OK, NOTE}
    assert [one.check for one in findings if one.status is NOTE] == ["GPU"]
    assert not any(one.advice for one in findings)


def test_what_is_not_known_is_no_problem() -> None:
    nothing_known = Facts(engine=Engine())
    assert PROBLEM not in {one.status for one in diagnose(nothing_known)}


@pytest.mark.parametrize(
    ("change", "check", "status", "words"),
    [
        ({"python": (3, 10)}, "Python", PROBLEM, "3.11 to 3.13"),
        ({"python": (3, 14)}, "Python", PROBLEM, "3.11 to 3.13"),
        ({"python": (3, 13)}, "Python", OK, "3.13"),
        ({"uv": ""}, "uv", NOTE, "make setup"),
        ({"uv": None}, "uv", NOTE, "no checkout"),
        ({"worker_environment": Environment.DIFFERS}, "worker env", PROBLEM, "make setup"),
        ({"settings_error": "DTYPES must be …"}, "settings", PROBLEM, "DTYPES must be …"),
        ({"engine": None}, "INFINITY_URL", OK, "answers"),
        ({"engine": None, "url_failure": "timed out"}, "INFINITY_URL", PROBLEM, "timed out"),
        ({"edge_user": PortUser.EDGE}, "port 8000", NOTE, "make serve"),
        ({"edge_user": PortUser.OTHER}, "port 8000", PROBLEM, "--port 9000"),
        ({"edge_user": PortUser.INFINITY}, "port 8000", PROBLEM, "an Infinity server"),
        ({"memory_mb": 400}, "memory", PROBLEM, "1,000 MB"),
        ({"disk_mb": 500}, "disk", PROBLEM, "1,000 MB"),
        ({"disk_mb": 1_000}, "disk", OK, "1,000 MB"),
    ],
)
def test_a_finding(change: dict[str, Any], check: str, status: Status, words: str) -> None:
    found = finding(replace(HEALTHY, **change), check)
    assert found.status is status
    assert words in f"{found.message} {found.advice}"


@pytest.mark.parametrize(
    ("change", "check", "status", "words"),
    [
        ({"environment": Environment.DIFFERS}, "engine env", PROBLEM, "make setup"),
        ({"environment": Environment.MISSING}, "engine env", PROBLEM, "make setup"),
        ({"installed": False}, "engine program", PROBLEM, "ENGINE_BIN"),
        ({"failure": "ImportError: x"}, "engine program", PROBLEM, "ImportError: x"),
        ({"tried": False}, "engine program", NOTE, "--quick"),
        ({"port_number": 0}, "engine port", OK, "choose"),
        ({"port_user": PortUser.INFINITY}, "port 7997", PROBLEM, "INFINITY_URL=http://127.0.0.1"),
        ({"port_user": PortUser.OTHER}, "port 7997", PROBLEM, "INFINITY_PORT"),
        ({"models": (("m", ModelPlace.NO_FOLDER),)}, "model m", PROBLEM, "MODEL_NAMES"),
        ({"models": (("m", ModelPlace.HUB),)}, "model m", NOTE, "download"),
        (
            {"models": (("m", ModelPlace.HUB),), "offline": True},
            "model m",
            PROBLEM,
            "HF_HUB_OFFLINE",
        ),
        ({"models": (("m", ModelPlace.CACHE),), "offline": True}, "model m", OK, "cache"),
        ({"choices": ("m: from the volume", "  not from x")}, "models at start", OK, "not from x"),
    ],
)
def test_a_finding_about_the_engine(
    change: dict[str, Any], check: str, status: Status, words: str
) -> None:
    found = finding(replace(HEALTHY, engine=replace(ENGINE, **change)), check)
    assert found.status is status
    assert words in f"{found.message} {found.advice}"


@pytest.mark.parametrize(
    ("gpu", "status", "words"),
    [
        (Gpu(), NOTE, "runs on the CPU"),
        (Gpu(wanted="cuda"), PROBLEM, "ENGINE_DEVICE is cuda"),
        (Gpu(devices=True), PROBLEM, "driver"),
        (Gpu(devices=True, wanted="cpu"), NOTE, "driver"),
        (Gpu(devices=True, names=("L4, 550",), cuda_engine=True), OK, "L4, 550"),
        (Gpu(devices=True, names=("L4, 550",)), OK, "L4, 550"),
        (Gpu(devices=True, names=("L4, 550",), cuda_engine=False), PROBLEM, "ENGINE_TORCH=cuda"),
        (Gpu(devices=True, names=("L4",), cuda_engine=False, wanted="cpu"), OK, "L4"),
    ],
)
def test_a_finding_about_the_gpu(gpu: Gpu, status: Status, words: str) -> None:
    found = finding(replace(HEALTHY, gpu=gpu), "GPU")
    assert found.status is status
    assert words in f"{found.message} {found.advice}"


@pytest.mark.parametrize(
    ("devices", "disk_mb", "status"),
    [(False, 2_000, PROBLEM), (False, 3_000, OK), (True, 3_000, PROBLEM), (True, 10_000, OK)],
)
def test_an_engine_that_is_yet_to_be_installed_needs_more_disk(
    devices: bool,  # noqa: FBT001  # a column of the table
    disk_mb: int,
    status: Status,
) -> None:
    missing = replace(ENGINE, environment=Environment.MISSING)
    facts = replace(HEALTHY, engine=missing, gpu=Gpu(devices=devices), disk_mb=disk_mb)
    assert finding(facts, "disk").status is status


def test_a_running_stack_is_no_problem() -> None:
    engine = replace(ENGINE, port_user=PortUser.INFINITY)
    facts = replace(HEALTHY, engine=engine, edge_user=PortUser.EDGE)
    assert PROBLEM not in {one.status for one in diagnose(facts)}


def test_every_problem_says_what_to_do() -> None:
    worst = Facts(
        python=(3, 9),
        worker_environment=Environment.DIFFERS,
        settings_error="x",
        engine=Engine(
            Environment.MISSING,
            installed=False,
            port_user=PortUser.OTHER,
            models=(("a", ModelPlace.NO_FOLDER), ("b", ModelPlace.HUB)),
            offline=True,
        ),
        gpu=Gpu(wanted="cuda"),
        edge_user=PortUser.OTHER,
        memory_mb=1,
        disk_mb=1,
    )
    problems = [one for one in diagnose(worst) if one.status is PROBLEM]
    assert len(problems) == 12
    assert all(one.advice for one in problems)
