"""The internals of the RunPod SDK that `job_loop.py` touches.

When one of these fails after an update of the SDK, look at what is named and at `job_loop.py`: the
loop relies on it. `WORKER_JOB_LOOP=stock` runs the SDK's own loop in the meantime.
"""

import asyncio
import inspect

import pytest
import runpod
from runpod.http_client import AsyncClientSession
from runpod.serverless import worker
from runpod.serverless.modules import rp_http, rp_job, rp_logger, rp_ping, rp_scale, worker_state


def source(thing: object) -> str:
    return inspect.getsource(thing)  # type: ignore[arg-type]  # any module, class or function


def test_the_loop_is_made_by_its_name_in_rp_scale() -> None:
    told = "worker.run_worker no longer makes its loop as rp_scale.JobScaler(config).start()"
    text = source(worker.run_worker)
    assert "rp_scale.JobScaler(config)" in text, told
    assert "job_scaler.start()" in text, told


def test_fitness_checks_and_heartbeat_come_before_the_loop() -> None:
    text = source(worker.run_worker)
    steps = [text.index(step) for step in ("run_fitness_checks()", "start_ping(", "JobScaler(")]
    assert steps == sorted(steps), "worker.run_worker starts things in another order"


@pytest.mark.parametrize("name", ["__init__", "start", "run", "kill_worker", "is_alive"])
def test_the_scaler_has(name: str) -> None:
    assert callable(getattr(rp_scale.JobScaler, name, None)), f"JobScaler.{name} is gone"


def test_the_scalers_state() -> None:
    async def look() -> rp_scale.JobScaler:
        return rp_scale.JobScaler({})

    scaler = asyncio.run(look())
    assert scaler.jobs_tasks == {}, "JobScaler.jobs_tasks no longer maps job ids to tasks"
    assert isinstance(scaler.job_progress, worker_state.JobsProgress)
    assert scaler.is_alive()
    scaler.kill_worker()
    assert not scaler.is_alive(), "kill_worker no longer ends is_alive"


def test_a_stop_signal_cancels_the_task_of_that_id() -> None:
    async def stop() -> bool:
        scaler = rp_scale.JobScaler({})
        task = asyncio.create_task(asyncio.sleep(60))
        scaler.jobs_tasks["job-1"] = task
        await scaler.stop_job("job-1")
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(stop()), "JobScaler.stop_job no longer cancels jobs_tasks[job_id]"
    text = source(rp_scale.JobScaler.monitor_stop_signals)
    assert "self.stop_job(" in text, "monitor_stop_signals no longer calls stop_job"


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (rp_job._job_get_url, ["batch_size"]),
        (worker_state.JobsProgress.add, ["self", "element"]),
        (worker_state.JobsProgress.remove, ["self", "element"]),
        (rp_logger.RunPodLogger.set_level, ["self", "new_level"]),
        (rp_ping.Heartbeat.start_ping, ["self", "mirror", "test"]),
    ],
)
def test_the_parameters_of(function: object, parameters: list[str]) -> None:
    found = list(inspect.signature(function).parameters)  # type: ignore[arg-type]  # callable
    assert found == parameters, f"the parameters of {function} changed"


def test_the_url_for_jobs_asks_for_one_or_for_a_batch() -> None:
    text = source(rp_job._job_get_url)
    assert '"/job-take/", "/job-take-batch/"' in text, "the URL of job-take-batch changed"
    assert "batch_size=" in text, "the parameter batch_size changed"


def test_job_progress_is_one_for_all_and_takes_plain_ids() -> None:
    progress = worker_state.JobsProgress()
    assert progress is rp_job.job_progress, "job_in_progress is read from another set"
    progress.add("contract-1")
    assert "contract-1" in str(progress.get_job_list())
    progress.remove("contract-1")
    assert "contract-1" not in str(progress.get_job_list())


def test_results_go_to_job_done_url() -> None:
    assert isinstance(rp_http.JOB_DONE_URL, str), "rp_http.JOB_DONE_URL is gone"
    text = source(rp_http._handle_result)
    assert '.replace("$ID", job["id"]) + f"&isStream={is_stream}"' in text, "job-done's URL changed"
    assert '"Content-Type": "application/x-www-form-urlencoded"' in source(rp_http._transmit)


def test_the_parser_knows_the_ways_to_run_without_a_platform() -> None:
    arguments, _ = runpod.serverless.parser.parse_known_args([])
    assert not arguments.rp_serve_api
    assert not arguments.test_input
    told = "the SDK now runs its one test job on other conditions: see job_loop._is_one_job"
    assert '"RUNPOD_WEBHOOK_GET_JOB", None) is None' in source(worker._is_local), told


async def test_the_session_carries_the_key() -> None:
    async with AsyncClientSession() as session:
        assert "Authorization" in session.headers, "AsyncClientSession no longer sends the key"


def test_the_sdk_is_of_the_series_that_this_was_written_for() -> None:
    assert runpod.__version__.split(".")[0] == "1"
