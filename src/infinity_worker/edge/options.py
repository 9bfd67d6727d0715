"""Reads what a caller asks for besides the input: `webhook` and `policy`."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

from infinity_worker.edge.job import DEFAULT_OPTIONS, JobOptions

MAX_MS = 7 * 86_400_000
"""The longest executionTimeout, and time to live: seven days."""

WEBHOOK_PATTERN = r"^https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?([/?#][!-~]*)?$"
"""An http or https URL with a host; in ASCII, as URLs are written."""


def read_options(body: Mapping[str, Any]) -> JobOptions:
    """The options of a job; a field that is null counts as absent, unknown ones are ignored.

    Raises:
        HTTPException: With 400, for a value that cannot be used.
    """
    policy, webhook = body.get("policy"), body.get("webhook")
    if policy is None and webhook is None:
        return DEFAULT_OPTIONS
    if policy is None:
        policy = {}
    if not isinstance(policy, dict):
        raise HTTPException(400, "'policy' must be an object.")
    if not isinstance(policy.get("lowPriority"), bool | None):
        raise HTTPException(400, "'policy.lowPriority' must be true or false.")
    return JobOptions(
        _seconds(policy, "executionTimeout", DEFAULT_OPTIONS.execution_timeout_s),
        _seconds(policy, "ttl", DEFAULT_OPTIONS.ttl_s),
        _url(webhook),
    )


def _seconds(policy: Mapping[str, Any], name: str, default_s: float) -> float:
    value = policy.get(name)
    if value is None:
        return default_s
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 1 <= value <= MAX_MS):
        limits = f"from 1 to {MAX_MS}"
        raise HTTPException(400, f"'policy.{name}' must be a number of milliseconds, {limits}.")
    return float(value) / 1000


def _url(webhook: Any) -> str | None:
    if webhook is None:
        return None
    if isinstance(webhook, str) and re.fullmatch(WEBHOOK_PATTERN, webhook):
        return webhook
    raise HTTPException(400, "'webhook' must be an http or https URL.")
