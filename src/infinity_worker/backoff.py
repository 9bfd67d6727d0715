"""How long to wait before trying again: doubling, with jitter, up to a cap."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_S = 0.1
CAP_S = 5.0


@dataclass(slots=True)
class Backoff:
    """The waits between tries of one thing.

    Jitter keeps workers that failed together from trying again together: each wait lies between
    half of the full one and the full one.

    Attributes:
        failures: tries that failed in a row.
    """

    failures: int = 0

    def next_s(self, retry_after_s: float | None = None) -> float:
        """Count a failure and say how long to wait: never less than the server wishes."""
        full = min(CAP_S, math.ldexp(FIRST_S, min(self.failures, 10)))
        self.failures += 1
        jittered = full * random.uniform(0.5, 1.0)  # noqa: S311  # nobody gains by guessing it
        return max(jittered, retry_after_s or 0.0)

    def reset(self) -> None:
        """Forget the failures: a try went well."""
        self.failures = 0


def retry_after_s(headers: Mapping[str, str], longest_s: float = 60.0) -> float | None:
    """The seconds in a Retry-After header; None where it is absent, a date or out of bounds."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= longest_s else None
