import json
import logging

from infinity_worker.logs import JsonFormatter


def test_a_line_is_one_json_object() -> None:
    record = logging.LogRecord("infinity_worker.x", logging.INFO, "", 0, "job %s", ("j1",), None)
    assert json.loads(JsonFormatter().format(record)) == {
        "level": "INFO",
        "logger": "infinity_worker.x",
        "message": "job j1",
    }
