"""The HTTP server does what its description says, for whatever fits the description or does not."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from http_worker import HttpWorker, running_http_worker
from infinity_worker.http_description import describe
from processes import BOUND_S

KEY = "a-key-for-tests"

# The same examples each time: what is found once should not come and go.
BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
# Keys are the other tests' business.
GENERATION = {"allow-extra-parameters": False, "with-security-parameters": False}
schema = schemathesis.openapi.from_dict(
    describe(has_keys=True), config=SchemathesisConfig.from_dict({"generation": GENERATION})
)
# Each operation is a test of its own name: pytest-xdist runs one of those that share one.
OPERATIONS: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]  # all are valid
# Only a body can be against its description.
CASES = [(operation, GenerationMode.POSITIVE) for operation in OPERATIONS] + [
    (operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if operation.method == "post"
]


@pytest.fixture(scope="module")
def server(fake_engine: str) -> Iterator[HttpWorker]:
    with running_http_worker(INFINITY_URL=fake_engine, API_KEY=KEY) as worker:
        worker.until_ping(200)
        yield worker


@pytest.mark.parametrize(
    ("operation", "mode"), CASES, ids=[f"{mode} {each.label}" for each, mode in CASES]
)
def test_what_is_served_is_as_described(
    operation: Any, mode: GenerationMode, server: HttpWorker
) -> None:
    @BOUNDED
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(
            base_url=server.url,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=BOUND_S,
            # Whether a model has so many numbers, takes an image or knows a prompt's name is
            # nothing that a schema can say.
            excluded_checks=[positive_data_acceptance],
        )

    check()


def test_the_description_is_served_to_everybody(server: HttpWorker) -> None:
    assert httpx.get(f"{server.url}/openapi.json").json() == describe(has_keys=True)
    shown = httpx.get(f"{server.url}/docs")
    assert shown.headers["content-type"].startswith("text/html")
    assert "swagger" in shown.text
    assert "openapi.json" in shown.text
    assert httpx.post(f"{server.url}/docs").status_code == 405


def test_the_openai_clients_routes_are_described() -> None:
    paths = describe(has_keys=False)["paths"]
    assert {"/v1/embeddings", "/v1/models", "/v1/models/{model}"} <= paths.keys()
    operations = [paths[path][method] for path in paths for method in paths[path].keys() & {"get"}]
    assert not any("security" in each or "401" in each["responses"] for each in operations)
