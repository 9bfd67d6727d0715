"""The edge does what its description says, for whatever fits the description and what does not."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import unsupported_method

from infinity_worker.edge.app import create_app
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.state import EdgeSettings
from infinity_worker.edge.workers import worker_environment
from processes import BOUND_S, TESTS, clean_environment, running

KEY, TOKEN = "client-key", "worker-token"
SETTINGS = EdgeSettings(api_key=KEY, worker_token=TOKEN, poll_s=0.05, stream_s=0.01)

# The same examples each time: what is found once should not come and go.
BOUNDED = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


# Unknown parameters are ignored, as the SDK's own `gpu` is; keys are the other tests' business.
GENERATION = {"allow-extra-parameters": False, "with-security-parameters": False}

DESCRIPTION = create_app(SETTINGS).openapi()
schema = schemathesis.openapi.from_dict(
    DESCRIPTION, config=SchemathesisConfig.from_dict({"generation": GENERATION})
)


@pytest.fixture(scope="module")
def clients_url() -> Iterator[str]:
    """An edge with a worker on the real SDK behind it."""
    with EdgeServer(SETTINGS) as edge:
        program = [sys.executable, str(TESTS / "fakes" / "echo_worker.py")]
        variables = worker_environment(edge.url, "local", "echo-1", TOKEN)
        with running(program, clean_environment(**variables), output=subprocess.DEVNULL):
            answer = httpx.post(
                f"{edge.url}/v2/local/runsync",
                headers={"Authorization": KEY},
                json={"input": {"echo": 1}},
                timeout=BOUND_S,
            )
            assert answer.json()["status"] == "COMPLETED"
            yield edge.url


@pytest.fixture(scope="module")
def workers_url() -> Iterator[str]:
    """An edge whose line is empty."""
    with EdgeServer(SETTINGS) as edge:
        yield edge.url


# Each operation is a test of its own name: pytest-xdist runs one of those that share one.
OPERATIONS: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]  # all are valid
OF_WORKERS = [each for each in OPERATIONS if "workers" in each.tags]
OF_CLIENTS = [each for each in OPERATIONS if "workers" not in each.tags]


def validate(operation: Any, url: str, key: str, excluded: list[Any]) -> None:
    """Call an operation with generated cases, and check each answer against the description."""

    @BOUNDED
    @given(case=operation.as_strategy())
    def check(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(
            base_url=url, headers={"Authorization": key}, timeout=BOUND_S, excluded_checks=excluded
        )

    check()


@pytest.mark.parametrize("operation", OF_CLIENTS, ids=lambda each: each.label)
def test_what_clients_call_is_as_described(operation: Any, clients_url: str) -> None:
    # Any method of the OpenAI route is a job; the two that clients use are described.
    excluded = [unsupported_method] if "{path}" in operation.path else []
    validate(operation, clients_url, f"Bearer {KEY}", excluded)


@pytest.mark.parametrize("operation", OF_WORKERS, ids=lambda each: each.label)
def test_what_workers_call_is_as_described(operation: Any, workers_url: str) -> None:
    validate(operation, workers_url, TOKEN, [])


def test_the_description_is_served(clients_url: str) -> None:
    assert httpx.get(f"{clients_url}/openapi.json").json() == json.loads(json.dumps(DESCRIPTION))
    assert "swagger" in httpx.get(f"{clients_url}/docs").text


def test_without_keys_nobody_is_told_to_bring_one() -> None:
    described = create_app(EdgeSettings()).openapi()
    operations = [each for path in described["paths"].values() for each in path.values()]
    assert not any("401" in each["responses"] or "security" in each for each in operations)
