"""Ends child processes when the worker dies in a way that runs no code of its own, as by SIGKILL.

Linux only: the kernel sends a signal of choice to a process when its parent dies (prctl(2),
PR_SET_PDEATHSIG). It is not passed on to children of children, and "the parent" is the thread that
forked; so a program is started from the main thread, through a guard:

    worker ── guard (this file, run as a program) ── COMMAND ── whatever that starts

The guard leads the process group of all of them, and ends the group once the worker is gone. It
ends as the command ends: with its exit status, or by the same signal.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
# A shell's statuses for "not executable".
_CANNOT_EXECUTE = 126


def guarded(command: Sequence[str]) -> list[str]:
    """Put a guard before a command line; to be started in a session of its own."""
    # Neither site-packages nor variables of the user: it starts in a few milliseconds.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def end_forks_with_this_process() -> None:
    """Have processes that Python forks from now on, such as multiprocessing's, end with this one.

    Programs that `subprocess` starts are not meant, and not affected.
    """
    libc = ctypes.CDLL(None)
    parent = 0

    def before() -> None:
        nonlocal parent
        parent = os.getpid()

    def in_child() -> None:
        _end_with(parent, signal.SIGKILL, libc)

    os.register_at_fork(before=before, after_in_child=in_child)


def _end_with(parent: int, number: signal.Signals, libc: ctypes.CDLL) -> None:
    """Have the kernel send this process a signal when its parent ends, or if it already has."""
    libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _guard(parent: int, command: Sequence[str]) -> NoReturn:
    libc = ctypes.CDLL(None)
    signal.signal(signal.SIGHUP, lambda _number, _frame: os.killpg(0, signal.SIGKILL))
    # Meant for the command, which gets its own as a member of the group.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_with(parent, signal.SIGHUP, libc)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _end_with(guard, signal.SIGKILL, libc)
        try:
            os.execvp(command[0], list(command))  # noqa: S606  # no shell is what is wanted
        except OSError as error:
            sys.stderr.write(f"cannot run it: {error.strerror}\n")
            os._exit(_CANNOT_EXECUTE)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(guard, -code)
    os._exit(code)


if __name__ == "__main__":
    _guard(int(sys.argv[1]), sys.argv[2:])
