"""Runs one documented example several times, each with a model and texts of its own.

Reads `[code, …]` as JSON from its input; each code is Python that leaves `vectors` behind. Prints,
as JSON, for each the vectors, or what the client said when it failed.
"""

import json
import sys
from typing import Any


def outcome(code: str) -> dict[str, Any]:
    left: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(code, left)  # noqa: S102  # the example is the project's own
    except Exception as error:  # noqa: BLE001  # what a client raises is what is asked about
        return {"error": f"{type(error).__name__}: {error}"}
    return {"vectors": [list(map(float, vector)) for vector in left["vectors"]]}


if __name__ == "__main__":
    outcomes = [outcome(code) for code in json.load(sys.stdin)]
    # Clients print things of their own: the last line is the answer.
    print("\n" + json.dumps(outcomes))  # noqa: T201
