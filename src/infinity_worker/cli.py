"""`infinity-worker`: the command line. Each command lives in a module of its own."""

import argparse
from collections.abc import Sequence

from infinity_worker import doctor, request
from infinity_worker.serve import command as serve
from infinity_worker.sizing import command as plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the process's exit status.

    A command's module has `register(commands)`, which adds its parser and sets `run`, the function
    that is handed the arguments and returns the exit status.
    """
    parser = argparse.ArgumentParser(prog="infinity-worker", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve.register(commands)
    request.register(commands)
    doctor.register(commands)
    plan.register(commands)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status
