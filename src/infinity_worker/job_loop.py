"""Takes jobs from RunPod and reports their results, on the RunPod SDK.

The SDK keeps what it does well: its arguments (`--test_input`, `--rp_serve_api`), fitness checks,
the heartbeat, job tracking and stop signals. Taking, running and reporting are ours, because its
loop starts jobs up to 100 ms late, sleeps a second when it is full, formats every result for its
log and loses results on a broken connection. Every internal of the SDK that is touched here is
pinned by a contract test.
"""

import asyncio
import contextlib
import functools
import logging
import signal
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import aiohttp
import orjson
import runpod
import uvloop
from runpod.http_client import AsyncClientSession
from runpod.serverless.modules import rp_http, rp_job, rp_scale
from runpod.serverless.modules.rp_logger import RunPodLogger

from infinity_worker.backoff import Backoff, retry_after_s
from infinity_worker.job_json import Job, read_jobs
from infinity_worker.logs import JobRecord, place_of
from infinity_worker.parent_death import end_forks_with_this_process
from infinity_worker.reporting import Delivery, Reporter
from infinity_worker.results import JobResult, Report, refused_report, report_of
from infinity_worker.settings import Settings
from infinity_worker.utils import create_error_response

log = logging.getLogger(__name__)


# The platform ends a poll well before this; only a dead connection lasts longer.
_TAKE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=100)
# An empty answer sooner than this means that the platform does not hold polls open.
_HELD_S = 0.05


class Service(Protocol):
    """What answers the jobs. All of it runs on the event loop that takes them, but `prepare`."""

    async def prepare(self) -> None:
        """Return once jobs can be answered; raise if they never will be."""

    async def answer(self, job: Job, record: JobRecord) -> JobResult:
        """Answer one job, and note in the record what the log may say about it."""

    def taking(self) -> None:
        """Note that a question for jobs is about to be sent."""

    async def supervise(self) -> None:
        """Go on until cancelled; raise when no more jobs should be taken."""

    async def close(self) -> None:
        """End what is held open."""


def run(service: Service, settings: Settings) -> None:
    """Take jobs until the platform ends the worker.

    The SDK reads its own arguments: with `--test_input` one job is run and its result printed, with
    `--rp_serve_api` its development server runs.

    Args:
        service: what answers the jobs; it is prepared in a fitness check on the platform, so that
            the platform is told why a worker does not start.
        settings: how many jobs at a time, limits and times.

    Raises:
        Exception: what `prepare`, off the platform, or `supervise` raised.
    """
    one_job = _is_one_job(settings)

    async def platform_handler(job: Job) -> object:
        return to_platform(await service.answer(job, JobRecord(str(job.get("id")))))

    async def engine_is_loaded_and_embeds() -> None:
        await service.prepare()

    async def only_handler(job: Job) -> object:
        try:
            return await platform_handler(job)
        finally:
            await service.close()

    if "RUNPOD_LOG_LEVEL" not in settings.environment:
        # At its default level, DEBUG, the SDK prints every result. A test's is printed at INFO.
        RunPodLogger().set_level("INFO" if one_job else "WARN")
    # The SDK's heartbeat is one: without this it would outlive a killed worker and ping for it.
    end_forks_with_this_process()
    # The SDK makes its loop by this name, once its start-up is done.
    loop = EventLoop if settings.job_loop == "event" else StockLoop
    rp_scale.JobScaler = functools.partial(loop, service=service, settings=settings)
    if "RUNPOD_WEBHOOK_GET_JOB" in settings.environment:
        runpod.serverless.register_fitness_check(engine_is_loaded_and_embeds)
    else:
        asyncio.run(service.prepare())
    runpod.serverless.start(
        {
            "handler": only_handler if one_job else platform_handler,
            "concurrency_modifier": lambda _current: settings.max_concurrency,
        }
    )


def _is_one_job(settings: Settings) -> bool:
    """Whether the SDK will run one test job and exit: it does so where it knows no platform."""
    arguments, _ = runpod.serverless.parser.parse_known_args()
    on_platform = "RUNPOD_WEBHOOK_GET_JOB" in settings.environment
    return not arguments.rp_serve_api and (bool(arguments.test_input) or not on_platform)


def to_platform(result: JobResult) -> object:
    """Give a result the form that the SDK's own loop posts: plain JSON values."""
    if isinstance(result, dict) and "error" in result:
        return {"error": orjson.dumps(result["error"]).decode()}
    # The SDK writes results with the standard library, which knows no arrays.
    return orjson.loads(orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY))


class EventLoop(rp_scale.JobScaler):  # type: ignore[misc]  # the SDK is untyped
    """The SDK's job loop, driven by events: nothing polls, sleeps or is formatted on the way.

    Args:
        config: the SDK's.
        service: answers the jobs; when it cannot go on, what was taken is finished and reported.
        settings: how many jobs at a time, limits and times.
    """

    def __init__(self, config: dict[str, Any], *, service: Service, settings: Settings) -> None:
        super().__init__(config)
        self._service = service
        self._settings = settings
        self._slot_freed = asyncio.Event()
        self._ending = asyncio.Event()
        self._leave = asyncio.Event()

    def start(self) -> None:
        """Run until told to end. The SDK's runs on asyncio's own, slower loop."""
        uvloop.run(self.run())

    async def run(self) -> None:
        """Take, run and report jobs until told to end; then finish what was taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        async with AsyncClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            reporter = Reporter(session, _job_done_url, self._settings.report_timeout_s)
            taking = asyncio.create_task(self._take_jobs(session, reporter))
            stopping = asyncio.create_task(self.monitor_stop_signals(session))
            supervising = asyncio.create_task(self._service.supervise())
            supervising.add_done_callback(self._supervision_ended)
            try:
                await self._until_left({taking})
                await self._until_left(set(self.jobs_tasks.values()))
                for task in (taking, supervising):
                    if task.done():
                        task.result()
            finally:
                await _cancel([taking, stopping, supervising, *self.jobs_tasks.values()])
                await self._service.close()

    async def _until_left(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until all of these are done, or it is time to leave."""
        leave = asyncio.create_task(self._leave.wait())
        while (pending := {task for task in tasks if not task.done()}) and not leave.done():
            await asyncio.wait({*pending, leave}, return_when=asyncio.FIRST_COMPLETED)
        await _cancel([leave])

    def _told_to_end(self) -> None:
        """On the first signal finish what was taken, within a bound; on the second leave."""
        if self._ending.is_set():
            self._leave.set()
        self._finish("told to end")

    def _supervision_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._finish("the engine is lost")

    def _finish(self, why: str) -> None:
        """Take nothing new, and leave once what was taken is reported."""
        if self._ending.is_set():
            return
        bound = self._settings.shutdown_timeout_s
        log.info("%s: finishing %d jobs, for %.0f s at most", why, len(self.jobs_tasks), bound)
        self.kill_worker()
        self._ending.set()
        self._slot_freed.set()
        asyncio.get_running_loop().call_later(bound, self._leave.set)

    async def _take_jobs(self, session: aiohttp.ClientSession, reporter: Reporter) -> None:
        """Keep one long poll open while a slot is free, for as many jobs as there are slots."""
        backoff = Backoff()
        while self.is_alive():
            free = self._settings.max_concurrency - len(self.jobs_tasks)
            if free <= 0:
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            asked_at = time.monotonic()
            self._service.taking()
            poll = await _poll(session, free)
            for job in poll.jobs:
                self._begin(job, reporter)
            held = time.monotonic() - asked_at >= _HELD_S
            if poll.jobs or (held and not poll.failed):
                backoff.reset()
                continue
            with contextlib.suppress(TimeoutError):
                pause_s = backoff.next_s(poll.retry_after_s)
                await asyncio.wait_for(self._ending.wait(), pause_s)

    def _begin(self, job: Job, reporter: Reporter) -> None:
        job_id = job.get("id")
        if not isinstance(job_id, str):
            log.error("the platform sent a job without an id: nothing can be reported for it")
            return
        if job_id in self.jobs_tasks:
            return
        self.job_progress.add(job_id)
        task = asyncio.create_task(self._answer(job_id, job, reporter))
        self.jobs_tasks[job_id] = task
        task.add_done_callback(lambda _task: self._end(job_id))

    def _end(self, job_id: str) -> None:
        self.job_progress.remove(job_id)
        del self.jobs_tasks[job_id]
        self._slot_freed.set()

    async def _answer(self, job_id: str, job: Job, reporter: Reporter) -> None:
        """Run one job and report it; a stop signal cancels this, and then nothing is posted."""
        record = JobRecord(job_id)
        try:
            result, report = await self._run_one(job, record)
            delivery = await reporter.send(job_id, report)
            if delivery is Delivery.REFUSED:
                report = refused_report(result, len(report.body))
                delivery = await reporter.send(job_id, report)
        except asyncio.CancelledError:
            record.write("stopped")
            raise
        outcome = "error" if report.code != HTTPStatus.OK else "ok"
        done = delivery is Delivery.ACCEPTED
        record.write(outcome if done else delivery.value, report.code, len(report.body))

    async def _run_one(self, job: Job, record: JobRecord) -> tuple[JobResult, Report]:
        """Run the handler and write its result; something is always there to report."""
        try:
            result = await self._service.answer(job, record)
            return result, report_of(result, self._settings.result_limit_bytes)
        except Exception as error:  # noqa: BLE001  # a job without any report would be lost
            log.error("job %s cannot be answered: %s", record.job_id, place_of(error))  # noqa: TRY400  # a traceback may repeat an input
            failure = create_error_response("internal error", "internal_error", 500)
            return failure, report_of(failure, self._settings.result_limit_bytes)


class StockLoop(rp_scale.JobScaler):  # type: ignore[misc]  # the SDK is untyped
    """The SDK's own loop, beside which the engine is watched.

    Args:
        config: the SDK's.
        service: what answers the jobs.
        settings: taken for the sake of `EventLoop`'s signature.
    """

    def __init__(self, config: dict[str, Any], *, service: Service, settings: Settings) -> None:  # noqa: ARG002  # said above
        super().__init__(config)
        self._service = service

    async def run(self) -> None:
        """Run the SDK's loop until it is told to end or the engine is lost."""
        supervising = asyncio.create_task(self._service.supervise())
        supervising.add_done_callback(lambda _task: self.kill_worker())
        self._service.taking()
        try:
            await super().run()
            if supervising.done():
                supervising.result()
        finally:
            await _cancel([supervising])
            await self._service.close()


class _Poll(NamedTuple):
    """What one question for jobs brought."""

    jobs: Sequence[Job] = ()
    failed: bool = False
    retry_after_s: float | None = None


async def _poll(session: aiohttp.ClientSession, free: int) -> _Poll:
    """Ask once for jobs; the platform holds the question open until there is one."""
    try:
        async with session.get(rp_job._job_get_url(free), timeout=_TAKE_TIMEOUT) as response:  # noqa: SLF001  # pinned by a contract test
            content = await response.read()
            if response.status == HTTPStatus.OK:
                return _Poll(read_jobs(content))
            # 400 is the platform's answer while FlashBoot keeps the worker asleep.
            if response.status in {HTTPStatus.NO_CONTENT, HTTPStatus.BAD_REQUEST}:
                return _Poll()
            log.warning("asking for jobs: the platform answered %d", response.status)
            return _Poll(failed=True, retry_after_s=retry_after_s(response.headers))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        log.warning("asking for jobs failed: %s", type(error).__name__)
        return _Poll(failed=True)


def _job_done_url(job_id: str) -> str:
    return f"{rp_http.JOB_DONE_URL.replace('$ID', job_id)}&isStream=false"


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
