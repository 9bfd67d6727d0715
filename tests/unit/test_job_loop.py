import json

import numpy as np
import pytest

from infinity_worker.job_loop import to_platform
from infinity_worker.results import JobResult
from infinity_worker.utils import create_error_response

ERROR = create_error_response("down", "engine_unavailable", 503)


def test_an_error_object_fails_the_job_with_json_text() -> None:
    posted = to_platform(ERROR)
    assert isinstance(posted, dict)
    assert json.loads(posted["error"]) == ERROR["error"]


@pytest.mark.parametrize("result", [[ERROR], {"data": [1, "a", None]}, [{"a": 1}]])
def test_everything_else_completes_it(result: JobResult) -> None:
    assert to_platform(result) == result


def test_arrays_become_numbers_that_the_sdk_can_write() -> None:
    result: JobResult = {"embedding": np.array([0.1, -2.5], np.float32)}
    assert json.loads(json.dumps(to_platform(result))) == {"embedding": [0.1, -2.5]}
