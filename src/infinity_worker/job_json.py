"""Reads what the platform sends for jobs: whatever is in one of them, the others are not lost."""

import json
import re
from collections.abc import Mapping
from typing import TypeAlias

import orjson

Job: TypeAlias = Mapping[str, object]

# Deeper than any accepted input is nested, and shallower than any JSON reader gives up.
_DEEPEST = 100
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def read_jobs(content: bytes) -> list[Job]:
    """Read the answer of job-take (one job) or job-take-batch (a list); empty is no job.

    Raises:
        ValueError: it is no JSON.
    """
    if not content:
        return []
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        # orjson refuses half a surrogate pair and more than 1,024 levels: no reason to lose jobs.
        answer = json.loads(_shallow(content))
    jobs = answer if isinstance(answer, list) else [answer]
    return [job for job in jobs if isinstance(job, dict)]


def _shallow(content: bytes) -> bytes:
    """The same JSON with null in the place of what is nested too deeply for any request."""
    kept: list[bytes] = []
    depth = start = 0
    for match in _STRING_OR_BRACKET.finditer(content):
        match match[0]:
            case b"[" | b"{":
                depth += 1
                if depth == _DEEPEST:
                    kept += (content[start : match.start()], b"null")
            case b"]" | b"}":
                if depth == _DEEPEST:
                    start = match.end()
                depth -= 1
    kept.append(content[start:])
    return b"".join(kept)
