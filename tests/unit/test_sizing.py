"""The plan and the simulation: against each other, against theory, and against impossible input."""

import argparse
import random
import statistics
from pathlib import Path

import pytest

from infinity_worker import cli
from infinity_worker.sizing import command
from infinity_worker.sizing.costs import EngineCost, Gpu, ServiceTime, SizingError
from infinity_worker.sizing.plan import Aims, Load, batch_at, plan
from infinity_worker.sizing.simulation import Endpoint, Simulation

COSTS = """
[models.small]
request_ms = 2.0
item_ms = 1.0
token_ms = 0.1
"""
GPUS = """
[gpus.slow]
price_per_s = 0.0001
[gpus.fast]
price_per_s = 0.0005
speed = 10.0
"""
COST = EngineCost(2.0, 1.0, 0.1)
SERVICE = ServiceTime(0.002, 0.004)


def poisson(rate: float, jobs: int, seed: int = 7) -> list[tuple[float, int]]:
    dice, moment, arrivals = random.Random(seed), 0.0, []  # noqa: S311  # arrivals
    for _ in range(jobs):
        moment += dice.expovariate(rate)
        arrivals.append((moment, 1))
    return arrivals


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (1.0, 1.0),  # nothing else comes meanwhile
        (200.0, 2.0),  # 200 · (0.002 + 0.004 · 2) = 2
        (240.0, 12.0),
        (249.0, 100.0),  # would be 124.5
        (1_000.0, 100.0),
    ],
)
def test_a_request_carries_what_came_during_the_one_before(rate: float, expected: float) -> None:
    assert batch_at(rate, SERVICE, 100) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rate", "gpu", "workers", "concurrency"),
    [
        (1.0, Gpu("slow", 1.0), 1, 200),
        (170.0, Gpu("slow", 1.0), 1, 200),
        (180.0, Gpu("slow", 1.0), 2, 200),
        (1_000.0, Gpu("slow", 1.0), 6, 200),
        (1_000.0, Gpu("fast", 1.0, 10.0), 1, 200),
    ],
)
def test_workers_follow_from_the_capacity(
    rate: float, gpu: Gpu, workers: int, concurrency: int
) -> None:
    # 100 items take 2 + 100 · 4 ms: 248.8 a second; 70 % of that is 174.
    sized = plan(Load(rate, tokens=30.0), COST, gpu, Aims(batch_items=100))
    assert (sized.workers, sized.concurrency) == (workers, concurrency)
    assert sized.utilisation <= 0.7
    assert sized.cost_per_hour == pytest.approx(3_600 * workers)


def test_slots_are_no_more_than_can_be_answered_in_time() -> None:
    slow = EngineCost(0.0, 100.0)
    assert plan(Load(1.0), slow, Gpu("g", 1.0), Aims(max_wait_s=2.0)).concurrency == 20
    assert plan(Load(1.0, items=64), slow, Gpu("g", 1.0), Aims()).concurrency == 2


@pytest.mark.parametrize(
    ("load", "cost", "aims"),
    [
        (Load(0.0), COST, Aims()),
        (Load(1.0, items=0), COST, Aims()),
        (Load(1.0), COST, Aims(utilisation=1.0)),
        (Load(1.0), COST, Aims(max_wait_s=0.0)),
        (Load(1.0), EngineCost(0.0, 0.0), Aims()),
    ],
)
def test_what_is_impossible_is_refused(load: Load, cost: EngineCost, aims: Aims) -> None:
    with pytest.raises(SizingError):
        plan(load, cost, Gpu("g", 1.0), aims)


def test_the_simulated_queue_is_that_of_theory() -> None:
    """One job at a time is M/D/1: the mean wait is u·s / 2(1 - u) (Pollaczek and Khinchine)."""
    service, rate = ServiceTime(0.01, 0.0), 70.0
    endpoint = Endpoint(service, concurrency=1, min_workers=1, max_workers=1)
    outcome = Simulation(endpoint, poisson(rate, 60_000)).run()
    used = rate * service.request_s
    expected = service.request_s * (1 + used / (2 * (1 - used)))
    assert statistics.mean(outcome.latencies) == pytest.approx(expected, rel=0.1)
    assert outcome.busy_s / outcome.end_s == pytest.approx(used, rel=0.05)


@pytest.mark.parametrize("rate", [20.0, 150.0, 400.0])
def test_the_plan_is_near_what_is_simulated(rate: float) -> None:
    sized = plan(Load(rate, tokens=30.0), COST, Gpu("g", 1.0), Aims(batch_items=100))
    endpoint = Endpoint(
        SERVICE,
        concurrency=sized.concurrency,
        batch_items=100,
        min_workers=sized.workers,
        max_workers=sized.workers,
    )
    service = COST.on(1.0, 30.0)
    assert (service.request_s, service.item_s) == pytest.approx((0.002, 0.004))
    outcome = Simulation(endpoint, poisson(rate, 10_000)).run()
    mean = statistics.mean(outcome.latencies)
    assert sized.latency_s / 2.5 < mean < sized.latency_s * 2.5
    used = outcome.busy_s / outcome.end_s / sized.workers
    assert sized.utilisation / 1.5 < used < sized.utilisation * 1.5


@pytest.mark.parametrize("requests_per_worker", [10, None])
def test_a_burst_starts_workers_and_the_idle_ones_end(requests_per_worker: int | None) -> None:
    endpoint = Endpoint(
        ServiceTime(0.05, 0.0),
        concurrency=1,
        cold_start_s=10.0,
        idle_timeout_s=5.0,
        max_workers=4,
        requests_per_worker=requests_per_worker,
    )
    burst = [(0.0, 1)] * 2_000
    late = [(200.0, 1)]
    outcome = Simulation(endpoint, burst + late).run()
    assert len(outcome.latencies) == 2_001
    started = [workers for _, _, workers in outcome.timeline]
    assert max(started) == 4
    # At 190 s all are long gone; the last job waits for a cold start of its own.
    assert started[190] == 0
    assert outcome.latencies[-1] == pytest.approx(10.05, abs=1.01)
    # While the last one waits, the queue's delay calls for more workers; its length does not.
    assert outcome.cold_starts == (5 if requests_per_worker else 8)
    assert outcome.worker_s >= outcome.busy_s


def test_more_workers_answer_sooner() -> None:
    def p95(workers: int) -> float:
        endpoint = Endpoint(SERVICE, 8, min_workers=workers, max_workers=workers)
        return Simulation(endpoint, [(0.0, 1)] * 400).run().percentile(0.95)

    assert p95(1) > 1.8 * p95(2) > 1.8 * 1.8 * p95(4)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_prints_a_plan_for_each_gpu_the_cheapest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs, gpus = tmp_path / "costs.toml", tmp_path / "gpus.toml"
    costs.write_text(COSTS)
    gpus.write_text(GPUS)
    words = ["--costs", str(costs), "--gpus", str(gpus), "--rate", "50", "--simulate"]
    assert cli.main(["plan", "--model", "small", *words]) == 0
    printed = capsys.readouterr().out
    assert printed.index("slow: 1 worker,") < printed.index("fast: 1 worker,")
    assert printed.count("RUNPOD_MAX_CONCURRENCY=") == 2
    assert printed.count("simulated") == 2


@pytest.mark.parametrize(
    ("costs", "words", "named"),
    [
        (COSTS, ["--model", "large"], "--model must be one of small"),
        ("[models.small]\nitem_ms = 1.0", [], "request_ms"),
        ("[models.small]\nrequest_ms = -1\nitem_ms = 1", [], "request_ms"),
        ("[models.small]\nrequest_ms = true\nitem_ms = 1", [], "request_ms"),
        ("[models.small]\nrequest_ms = nan\nitem_ms = 1", [], "request_ms"),
        ("[models", [], "no TOML"),
        ("models = 1", [], "[models.NAME]"),
        (None, [], "costs.toml"),
    ],
)
def test_an_unusable_file_is_an_error_that_says_why(
    tmp_path: Path, costs: str | None, words: list[str], named: str
) -> None:
    path = tmp_path / "costs.toml"
    if costs is not None:
        path.write_text(costs)
    with pytest.raises(SizingError) as caught:
        list(command.lines(arguments("--rate", "1", "--costs", str(path), *words)))
    assert named in str(caught.value)


def test_costs_may_be_given_by_hand_and_must_be_given() -> None:
    lines = list(command.lines(arguments("--rate", "1", "--request-ms", "2", "--item-ms", "4")))
    assert lines[0].startswith("this machine: 1 worker,")
    with pytest.raises(SizingError, match="--costs"):
        list(command.lines(arguments("--rate", "1")))


def test_the_command_ends_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--rate", "1"]) == 1
    assert "give --costs FILE" in capsys.readouterr().err
