"""The container's entry: `python -m infinity_worker` runs the engine and the job loop."""

import logging
import signal
import sys
from types import FrameType

from infinity_worker import logs
from infinity_worker.cold_start import ColdStart
from infinity_worker.engine import Engine, EngineLostError, EngineStartError
from infinity_worker.settings import Settings
from infinity_worker.variables import SettingsError

log = logging.getLogger("infinity_worker")


def main() -> int:
    """Start the engine, take jobs until told to end, stop the engine.

    Returns:
        The process's exit status.
    """
    cold_start = ColdStart()
    try:
        settings = Settings.from_process()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure(settings)
    cold_start.mark("settings")
    signal.signal(signal.SIGTERM, _leave)
    engine = None if settings.infinity_url else Engine(settings)
    try:
        run(settings, engine, cold_start)
    except (EngineStartError, EngineLostError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400  # the message says it all, the traceback nothing
        return 1
    finally:
        if engine is not None:
            engine.stop()
    return 0


def run(settings: Settings, engine: Engine | None, cold_start: ColdStart) -> None:
    """Load the models, then take jobs, or answer HTTP requests.

    Raises:
        EngineStartError: the engine did not come up.
        EngineLostError: the engine cannot be kept alive.
    """
    if engine is not None:
        engine.start()
        cold_start.mark("engine_started")
    if settings.mode == "http":
        # The SDK, which this way does without, takes a second to import.
        from infinity_worker import http_server  # noqa: PLC0415
        from infinity_worker.metrics import Metrics  # noqa: PLC0415
        from infinity_worker.service import Service  # noqa: PLC0415

        metrics = Metrics()
        service = Service(settings, engine, cold_start, metrics)
        cold_start.mark("tokenizers_loaded")
        http_server.run(service, metrics, settings)
        return
    # They take two seconds, while the engine loads; and a wrong setting is found out without them.
    from infinity_worker import job_loop  # noqa: PLC0415
    from infinity_worker.service import Service  # noqa: PLC0415

    cold_start.mark("sdk_imported")
    service = Service(settings, engine, cold_start)
    cold_start.mark("tokenizers_loaded")
    job_loop.run(service, settings)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End the process by an exception, so that the engine is stopped on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
