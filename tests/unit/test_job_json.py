import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.job_json import read_jobs

JOB = {"id": "j", "input": {"input": "a ] b"}}


@pytest.mark.parametrize(
    ("content", "jobs"),
    [
        (b"", []),
        (b"null", []),
        (b"[]", []),
        (b'[1, "a", null]', []),
        (json.dumps(JOB).encode(), [JOB]),
        (json.dumps([JOB, JOB]).encode(), [JOB, JOB]),
        (rb'{"id": "j", "input": "\ud83d"}', [{"id": "j", "input": "\ud83d"}]),
        (rb'{"id": "j", "input": -Infinity}', [{"id": "j", "input": -math.inf}]),
    ],
)
def test_what_the_platform_sends(content: bytes, jobs: list[object]) -> None:
    assert read_jobs(content) == jobs


@pytest.mark.parametrize("depth", [101, 900, 1_100, 5_000, 200_000])
@pytest.mark.parametrize("brackets", ["[]", '{"]":}'])
def test_a_job_that_is_nested_too_deeply_takes_no_other_with_it(depth: int, brackets: str) -> None:
    deep = brackets[:-1] * depth + "1" + brackets[-1] * depth
    content = f'[{{"id": "deep", "input": {deep}, "after": "]["}}, {json.dumps(JOB)}]'
    deep_job, other = read_jobs(content.encode())
    assert deep_job["id"] == "deep"
    assert deep_job["after"] == "]["
    assert other == JOB


@pytest.mark.parametrize("content", [b"{", b'{"id": "j"', b"<html>", b"]", b"[" * 5_000])
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_jobs(content)


@given(
    st.recursive(
        st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_reading_is_pythons_own(value: object) -> None:
    job = {"id": "j", "input": value, "half": "\ud83d"}
    assert read_jobs(json.dumps([job]).encode()) == [job]
