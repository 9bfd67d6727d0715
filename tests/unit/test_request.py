"""What `infinity-worker request` makes of its arguments and of answers."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from infinity_worker.request import (
    Embedding,
    EmbeddingReply,
    RequestFailed,
    ServedModel,
    Usage,
    choose_model,
    explain,
    label,
    read_item,
    report,
)

IMAGE = "data:image/png;base64,AAAA"
TEXT_MODEL = ServedModel(id="text", capabilities=frozenset({"embed"}))
CLIP_MODEL = ServedModel(id="clip", capabilities=frozenset({"embed", "image_embed"}))
UNKNOWN_MODEL = ServedModel(id="unknown")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.png", "data:image/png;base64,"),
        ("a.JPG", "data:image/jpeg;base64,"),
        ("a.tif", "data:image/tiff;base64,"),
        ("with a space.webp", "data:image/webp;base64,"),
    ],
)
def test_a_pictures_file_becomes_a_data_uri(tmp_path: Path, name: str, start: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x89PNG")
    item = read_item(str(path))
    assert item.startswith(start)
    assert base64.b64decode(item.removeprefix(start)) == b"\x89PNG"


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "hello world",
        "the logo is in logo.png",
        "notes.txt",
        "https://example.com/a.png",
        "HTTP://example.com/a.png",
        IMAGE,
    ],
)
def test_all_else_is_sent_as_it_is(argument: str) -> None:
    assert read_item(argument) == argument


@pytest.mark.parametrize("argument", ["/nowhere/missing.png", "missing.jpeg"])
def test_a_picture_that_is_not_there_is_no_text(argument: str) -> None:
    with pytest.raises(RequestFailed, match=r"missing.*No such file"):
        read_item(argument)


@pytest.mark.parametrize(
    ("served", "inputs", "chosen"),
    [
        ([TEXT_MODEL, CLIP_MODEL], ["a", "b"], "text"),
        ([TEXT_MODEL, CLIP_MODEL], ["a", IMAGE], "clip"),
        ([TEXT_MODEL, CLIP_MODEL], ["https://example.com/a.png"], "clip"),
        ([UNKNOWN_MODEL], ["a"], "unknown"),
    ],
)
def test_the_model_is_the_first_that_takes_the_items(
    served: list[ServedModel], inputs: list[str], chosen: str
) -> None:
    assert choose_model(served, inputs) == chosen


@pytest.mark.parametrize(
    ("served", "words"),
    [([TEXT_MODEL, UNKNOWN_MODEL], "--model of: text, unknown"), ([], "--model")],
)
def test_no_model_takes_images(served: list[ServedModel], words: str) -> None:
    with pytest.raises(RequestFailed, match=words):
        choose_model(served, [IMAGE])


def test_no_model_is_served() -> None:
    with pytest.raises(RequestFailed, match="no models"):
        choose_model([], ["a"])


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, {"error": {"message": "input[0]: no", "code": 400}}, "input[0]: no"),
        (500, {"error": {"message": "overloaded", "code": 429}}, "overloaded"),
        (404, {"detail": "Not Found"}, "HTTP 404, Not Found: check --url"),
        (401, {}, "HTTP 401: check --url"),
        (200, {"error": "in words"}, "HTTP 200, in words: check --url"),
        (502, ["odd"], "HTTP 502: check --url"),
    ],
)
def test_a_problem_is_explained(status: int, body: object, words: str) -> None:
    assert str(explain(status, json.dumps(body).encode())).startswith(words)


def test_a_page_is_no_answer() -> None:
    assert "HTTP 200 with something that is not JSON" in str(explain(200, b"<html>"))


@pytest.mark.parametrize("body", [{"data": []}, {"error": None, "data": []}])
def test_a_good_answer_is_no_problem(body: object) -> None:
    assert explain(200, json.dumps(body).encode()) is None


def reply(*vectors: list[float]) -> EmbeddingReply:
    # Out of order, as a server may send them.
    entries = [Embedding(index=at, embedding=vector) for at, vector in enumerate(vectors)]
    return EmbeddingReply(model="m", data=entries[::-1], usage=Usage(prompt_tokens=5, images=1))


def test_similarities_are_cosines_in_the_order_of_the_request() -> None:
    cosines = reply([2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0]).similarities()
    half = 0.5**0.5
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    assert np.allclose(cosines, expected)


def test_the_table() -> None:
    answer = reply([1.0, 0.0], [0.6, 0.8])
    assert report(answer, answer.similarities(), ["red", "a star"]).splitlines() == [
        "m: 2 embeddings of 2 numbers, 5 tokens, 1 images",
        "              1      2",
        "1 red     1.000  0.600",
        "2 a star  0.600  1.000",
    ]


def test_one_item_has_nothing_to_compare_with() -> None:
    answer = reply([0.25, -0.5, 0.0, 1.0, 2.0])
    printed = report(answer, answer.similarities(), ["red"])
    assert printed.endswith("\nred: 0.2500, -0.5000, 0.0000, 1.0000, …")


@pytest.mark.parametrize(
    ("argument", "short"),
    [
        ("two\nlines  of text", "two lines of text"),
        ("", '""'),
        ("/some/folder/picture.png", "picture.png"),
        ("x" * 41, "x" * 39 + "…"),
    ],
)
def test_labels_are_short_and_on_one_line(argument: str, short: str) -> None:
    assert label(argument) == short
