import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from infinity_worker.results import JobResult, Report, answer_of, refused_report, report_of
from infinity_worker.utils import create_error_response

LIMIT = 20_000
ERROR = create_error_response("down", "engine_unavailable", 503)
FAULT = create_error_response("bad", "invalid_request_error", 400, "input")


def embeddings(items: int, dimensions: int = 16, *, coded: bool = False) -> dict[str, Any]:
    vector = np.full(dimensions, 0.123456, np.float32)
    embedding = "A" * 88 if coded else vector
    entries = [{"object": "embedding", "index": i, "embedding": embedding} for i in range(items)]
    return {"object": "list", "data": entries}


def posted(report: Report) -> Any:
    return json.loads(report.body)


@pytest.mark.parametrize(
    ("result", "body", "code"),
    [
        ({"data": [1, "ä", None]}, {"output": {"data": [1, "ä", None]}}, 200),
        ([{"data": []}], {"output": [{"data": []}]}, 200),
        ([FAULT], {"output": [FAULT]}, 400),
        ({}, {"output": {}}, 200),
        ([], {"output": []}, 200),
    ],
)
def test_a_result_completes_its_job(result: JobResult, body: object, code: int) -> None:
    report = report_of(result, LIMIT)
    assert (posted(report), report.code) == (body, code)


def test_an_error_object_fails_its_job_with_json_text() -> None:
    report = report_of(ERROR, LIMIT)
    assert json.loads(posted(report)["error"]) == ERROR["error"]
    assert report.code == 503


@pytest.mark.parametrize(
    ("result", "body", "code"),
    [
        ([{"data": [1, "ä", None]}], {"data": [1, "ä", None]}, 200),
        ({"data": []}, {"data": []}, 200),
        ([FAULT], FAULT, 400),
        (ERROR, ERROR, 503),
    ],
)
def test_over_http_the_answer_is_the_bare_object(
    result: JobResult, body: object, code: int
) -> None:
    answer = answer_of(result, LIMIT)
    assert (json.loads(answer.body), answer.code) == (body, code)


def test_over_http_an_answer_that_is_too_large_says_how_many_items_would_fit() -> None:
    answer = answer_of([embeddings(1_000)], LIMIT)
    error = json.loads(answer.body)["error"]
    assert (answer.code, error["code"], error["type"]) == (413, 413, "request_too_large")
    fitting = int(error["message"].partition("at most ")[2].partition(" items")[0])
    assert answer_of([embeddings(fitting)], LIMIT).code == 200


@given(
    npst.arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    )
)
def test_floats_are_exact_to_the_bit(vector: NDArray[np.float32]) -> None:
    body = posted(report_of({"data": [{"embedding": vector}]}, LIMIT))
    received = np.array(body["output"]["data"][0]["embedding"], np.float64).astype(np.float32)
    assert received.tobytes() == vector.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        [{"deep": [b"bytes"]}],
        "half \ud83d",
        object(),
        {1: "keys are strings"},
        2**70,
    ],
)
def test_what_cannot_be_written_becomes_an_error(value: object) -> None:
    report = report_of({"data": value, "none": None}, LIMIT)
    assert json.loads(posted(report)["error"])["type"] == "internal_error"
    assert report.code == 500


def test_a_result_over_the_limit_says_how_many_items_would_fit() -> None:
    result = embeddings(200)
    report = report_of(result, LIMIT)
    error = json.loads(posted(report)["error"])
    size = len(report_of(result, 10**9).body)
    assert (error["code"], error["type"], report.code) == (413, "request_too_large", 413)
    assert f"{size:,} bytes" in error["message"]
    assert "20,000" in error["message"]
    fits = int(error["message"].partition("at most ")[2].split()[0])
    with_base64 = int(error["message"].partition(", or ")[2].split()[0])
    assert report_of(embeddings(fits), LIMIT).code == 200
    assert report_of(embeddings(fits + 5), LIMIT).code == 413
    assert report_of(embeddings(with_base64, coded=True), LIMIT).code == 200


def test_base64_is_not_recommended_to_who_uses_it() -> None:
    report = report_of(embeddings(300, coded=True), LIMIT)
    message = json.loads(posted(report)["error"])["message"]
    assert "at most" in message
    assert "base64" not in message


def test_on_an_openai_route_an_oversized_result_is_the_callers_fault() -> None:
    report = report_of([embeddings(200)], LIMIT)
    assert posted(report)["output"][0]["error"]["code"] == 413


def test_an_oversized_result_of_another_shape_is_named_too() -> None:
    report = report_of({"text": "x" * LIMIT}, LIMIT)
    assert "the limit is 20,000" in json.loads(posted(report)["error"])["message"]


def test_a_refused_result_is_replaced_by_a_small_error() -> None:
    assert json.loads(posted(refused_report({}, 30_000_000))["error"])["code"] == 413
    assert posted(refused_report([{}], 30_000_000))["output"][0]["error"]["code"] == 413
