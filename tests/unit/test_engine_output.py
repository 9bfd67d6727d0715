"""What the engine prints: what is passed on, and what is read from it."""

import io
import logging
import signal

import pytest

from infinity_worker.engine_output import (
    EngineOutput,
    kind_of_exception,
    likely_cause,
    without_paths,
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("loading /srv/models/minilm now", "loading minilm now"),
        ("OSError: '/srv/models/x' is no folder", "OSError: 'x' is no folder"),
        ('File "/usr/lib/a b.py", line 3', 'File "a b.py", line 3'),
        ("path=/srv/x,/srv/y:/srv/z", "path=x,y:z"),
        ("file:///srv/models/x", "x"),
        ("~/.cache/huggingface/x", "~x"),
        ("http://127.0.0.1:7997/health", "http://127.0.0.1:7997/health"),
        ("org/model at 3 it/s", "org/model at 3 it/s"),
        ("1 / 2", "1 / 2"),
        ("/", "/"),
    ],
)
def test_paths_are_shortened(line: str, expected: str) -> None:
    assert without_paths(line) == expected


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory", "OutOfMemoryError"),
        ("ValueError: a secret", "ValueError"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("a secret: ValueError", ""),
        ("    raise ValueError(secret)", ""),
    ],
)
def test_of_an_exception_only_the_kind_is_told(line: str, kind: str) -> None:
    assert kind_of_exception(line) == kind


def drained(output: EngineOutput, text: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO):
        output.drain(io.StringIO(text))
    return [record.getMessage() for record in caplog.records]


def test_while_loading_lines_are_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    output = EngineOutput()
    printed = "one      1\n\n    /srv/models/two\n"
    assert drained(output, printed, caplog) == ["engine: one  1", "engine:     two"]
    assert output.quoted() == "\n  engine: one  1\n  engine:     two"


def test_while_serving_nothing_that_may_repeat_an_input_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = EngineOutput()
    output.is_loading = False
    said = drained(output, "a secret\nValueError: a secret\nMemoryError: secret\n", caplog)
    assert said == ["engine: ValueError", "engine: MemoryError"]
    assert output.quoted() == ""
    assert "memory" in output.likely_cause(1)


def test_a_line_without_an_end_and_a_flood_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    said = drained(EngineOutput(), "x" * 10_000 + "\n" + "y\n" * 10_000, caplog)
    assert max(map(len, said)) < 1_100
    assert sum(map(len, said)) < 100_000
    assert any("left out" in line for line in said)


@pytest.mark.parametrize(
    ("last_words", "exit_code", "cause"),
    [
        (
            "OSError: org/x is not a local folder and is not a valid model identifier",
            1,
            "not found",
        ),
        ("RepositoryNotFoundError: 404 Client Error", 1, "not found"),
        ("OSError: /models/x does not appear to have a file named config.json", 1, "not found"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", 1, "memory"),
        ("", -signal.SIGKILL, "memory"),
        ("[Errno 98] error while attempting to bind: address already in use", 1, "port"),
        ("Cannot access gated repo for url. 401 Client Error", 1, "HF_TOKEN"),
        ("We couldn't connect to the hub to load this file", 1, "hub cannot be reached"),
        ("No such option: --frobnicate", 2, "options"),
        ("something else altogether", 1, "see its last lines"),
    ],
)
def test_a_failed_start_is_explained(last_words: str, exit_code: int, cause: str) -> None:
    assert cause in likely_cause(["first line", last_words], exit_code)
