import io
import json
import logging
from collections.abc import Iterator

import pytest

from infinity_worker.logs import JobRecord, JsonFormatter, PlainFormatter


@pytest.fixture
def written(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    logger = logging.getLogger("infinity_worker.jobs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("written", [JsonFormatter], indirect=True)
def test_a_job_is_one_json_object(written: io.StringIO) -> None:
    JobRecord("j1", model="m", texts=2, tokens=7, encoding="float").write("ok", 200, 512)
    line = json.loads(written.getvalue())
    assert line.pop("total_ms") > 0
    assert line == {
        "level": "INFO",
        "message": "job",
        "job": "j1",
        "outcome": "ok",
        "code": 200,
        "route": "standard",
        "model": "m",
        "texts": 2,
        "images": 0,
        "audio": 0,
        "failed": 0,
        "tokens": 7,
        "cached": 0,
        "encoding": "float",
        "engine_ms": 0.0,
        "bytes_out": 512,
    }


@pytest.mark.parametrize("written", [PlainFormatter], indirect=True)
def test_a_line_for_people_leaves_out_what_is_empty(written: io.StringIO) -> None:
    JobRecord("j1", texts=2).write("stopped")
    line = written.getvalue()
    assert " INFO    job job=j1 outcome=stopped route=standard texts=2 total_ms=" in line
    assert "model" not in line


def test_a_traceback_is_a_field() -> None:
    try:
        int("odd")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "job %s failed", ("j1",), info)
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "job j1 failed"
    assert "ValueError: invalid literal" in line["traceback"]
