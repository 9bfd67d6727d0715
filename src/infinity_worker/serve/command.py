"""`infinity-worker serve`: its options, and how it ends."""

import argparse
import signal
import sys
from types import FrameType

from infinity_worker.edge.state import OpenAIErrors, OversizedResults
from infinity_worker.engine import EngineStartError
from infinity_worker.serve.balanced import BalancedOptions, serve_balanced
from infinity_worker.serve.fleet import FleetError
from infinity_worker.serve.stack import ServeError, ServeOptions, serve
from infinity_worker.variables import SettingsError

MAX_WORKERS = 100


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its options to the command line."""
    parser = commands.add_parser(
        "serve",
        help="run engine, workers and local edge here",
        description="Run the Infinity engine, workers on the real RunPod SDK, and the local edge.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the edge listens")
    parser.add_argument("--port", type=int, default=8000, help="0 lets the system choose")
    parser.add_argument(
        "--api-key",
        help="what clients must send; better the variable EDGE_API_KEY, which no process list "
        "shows. Needed where others can reach --host",
    )
    parser.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="how many workers run"
    )
    parser.add_argument(
        "--engines",
        choices=("shared", "per-worker"),
        help="one engine for all workers, or one each, as on the platform; one worker owns its "
        "engine unless told otherwise, several share one",
    )
    parser.add_argument(
        "--scale-to-zero",
        type=_seconds,
        metavar="S",
        help="stop a worker after S seconds without jobs, and start one when a job comes",
    )
    parser.add_argument(
        "--openai-errors",
        choices=[each.value for each in OpenAIErrors],
        default=OpenAIErrors.PLATFORM.value,
        help="a failed job is an HTTP 500, as on the platform, or the error's own code",
    )
    parser.add_argument(
        "--oversized-results",
        choices=[each.value for each in OversizedResults],
        default=OversizedResults.COMPLETED.value,
        help="a job whose result is refused for its size ends without an output, as on the "
        "platform, or stays open",
    )
    parser.add_argument(
        "--type",
        choices=("queue", "load-balancing"),
        default="queue",
        help="the kind of endpoint; in a load-balancing one each worker has an engine of its own, "
        "unless INFINITY_URL is set, and the options of the queue mean nothing",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _leave)
    # A shell starts background processes with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    balanced = BalancedOptions(arguments.host, arguments.port, arguments.api_key, arguments.workers)
    options = ServeOptions(
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        openai_errors=OpenAIErrors(arguments.openai_errors),
        oversized_results=OversizedResults(arguments.oversized_results),
        workers=arguments.workers,
        scale_to_zero_s=arguments.scale_to_zero,
        engine_per_worker=None if arguments.engines is None else arguments.engines == "per-worker",
    )
    try:
        return serve_balanced(balanced) if arguments.type == "load-balancing" else serve(options)
    except KeyboardInterrupt:
        return 130
    except (SettingsError, EngineStartError, ServeError, FleetError) as error:
        print(f"infinity-worker: {error}", file=sys.stderr)
        return 1


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_WORKERS}")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return seconds


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End by an exception, so that every part is stopped on the way out."""
    raise SystemExit(0)
