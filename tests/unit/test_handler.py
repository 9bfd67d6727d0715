import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from corpus import data_uri, encoded, picture
from fakes.fake_engine import MODELS, FakeEngine, embedding_of
from infinity_worker.batching import Batcher
from infinity_worker.catalogue import Catalogue
from infinity_worker.demo import models
from infinity_worker.handler import async_handler
from infinity_worker.infinity_client import MAX_TEXT_CHARS, InfinityClient
from infinity_worker.results import JobResult
from infinity_worker.time_limit import TimeLimit
from infinity_worker.tokens import TokenCounter
from infinity_worker.worker import Worker

IMAGE = data_uri(encoded(picture(), "PNG"))
OTHER = data_uri(encoded(picture(40), "PNG"))
BROKEN = data_uri(encoded(picture(), "PNG")[:300])


async def answer(worker: Worker, job_input: object) -> JobResult:
    return await async_handler({"id": "job-1", "input": job_input}, worker)


def openai(route: str, body: object = None) -> dict[str, object]:
    return {"openai_route": route, "openai_input": body}


def vectors(result: Any) -> list[list[float]]:
    return [list(entry["embedding"]) for entry in result["data"]]


@pytest.mark.parametrize(
    "route", ["/v1/embeddings", "/embeddings", "v1/embeddings/", "/v1/embeddings?x=1"]
)
async def test_the_openai_route_answers_a_list_of_one(worker: Worker, route: str) -> None:
    result: Any = await answer(worker, openai(route, {"input": ["a", "b"], "model": "fake-text"}))
    assert len(result) == 1
    assert vectors(result[0]) == [list(embedding_of("a")), list(embedding_of("b"))]


@pytest.mark.parametrize("body", [None, {}])
@pytest.mark.parametrize("route", ["/v1/models", "/models"])
async def test_models_are_listed(worker: Worker, route: str, body: object) -> None:
    result: Any = await answer(worker, openai(route, body))
    assert [entry["id"] for entry in result[0]["data"]] == list(MODELS)


@pytest.mark.parametrize(
    ("job_input", "expected"),
    [
        ({"input": "a"}, ["a"]),
        ({"input": ["a", "b"]}, ["a", "b"]),
        ({"text": "a", "model": "fake-clip"}, ["a"]),
        ({"image": IMAGE, "model": "fake-clip"}, [IMAGE]),
        ({"image": [IMAGE, OTHER], "model": "fake-clip"}, [IMAGE, OTHER]),
        ({"image": IMAGE.partition(",")[2], "model": "fake-clip"}, [IMAGE]),
    ],
)
async def test_the_standard_format_answers_the_result(
    worker: Worker, job_input: dict[str, Any], expected: list[str]
) -> None:
    result = await answer(worker, job_input)
    assert vectors(result) == [list(embedding_of(item)) for item in expected]


async def test_the_first_model_is_the_default(worker: Worker) -> None:
    result: Any = await answer(worker, {"input": "a"})
    assert result["model"] == "fake-text"


async def test_a_mixed_list_is_split_and_put_back_in_order(
    engine: FakeEngine, worker: Worker
) -> None:
    items = ["a b", IMAGE, "c", OTHER, "d"]
    result: Any = await answer(worker, {"input": items, "model": "fake-clip"})
    assert vectors(result) == [list(embedding_of(item)) for item in items]
    assert [entry["index"] for entry in result["data"]] == [0, 1, 2, 3, 4]
    assert result["usage"] == {"prompt_tokens": 4, "total_tokens": 4, "images": 2}
    assert {request["modality"] for request in engine.requests} == {"image", "text"}


async def test_the_same_image_twice_is_embedded_once(engine: FakeEngine, worker: Worker) -> None:
    items = [IMAGE, "a", IMAGE, OTHER]
    result: Any = await answer(worker, {"input": items, "model": "fake-clip"})
    assert vectors(result) == [list(embedding_of(item)) for item in items]
    assert result["usage"]["images"] == 3
    sent = [item for request in engine.requests for item in request["input"]]
    assert sorted(sent) == sorted({"a", IMAGE, OTHER})


async def test_images_of_several_jobs_share_an_engine_request(
    engine: FakeEngine, worker: Worker
) -> None:
    engine.mode = "wait"
    jobs = [
        asyncio.ensure_future(answer(worker, {"image": [image], "model": "fake-clip"}))
        for image in [IMAGE, OTHER] * 10
    ]
    async with asyncio.timeout(20):
        await engine.asked.wait()
        engine.mode = "ok"
        results: Any = await asyncio.gather(*jobs)
    expected = [[list(embedding_of(image))] for image in [IMAGE, OTHER] * 10]
    assert [vectors(result) for result in results] == expected
    assert len(engine.requests) < 20


async def test_no_byte_of_a_bad_image_reaches_the_engine(
    engine: FakeEngine, worker: Worker
) -> None:
    result: Any = await answer(worker, {"input": ["a", BROKEN], "model": "fake-clip"})
    error = result["error"]
    assert (error["code"], error["param"]) == (400, "input[1]")
    assert error["message"] == "input[1]: the image is truncated (PNG, 300 bytes)"
    assert BROKEN not in [item for request in engine.requests for item in request["input"]]


async def test_null_for_bad_items_where_that_is_asked_for(worker: Worker) -> None:
    items = ["a", BROKEN, 7, IMAGE, "b" * (MAX_TEXT_CHARS + 1), BROKEN]
    result: Any = await answer(
        worker, {"input": items, "model": "fake-clip", "on_error": "null", "dimensions": 4}
    )
    data = result["data"]
    assert [entry["index"] for entry in data] == list(range(6))
    assert [at for at, entry in enumerate(data) if entry["embedding"] is not None] == [0, 3]
    assert [len(data[at]["embedding"]) for at in (0, 3)] == [4, 4]
    errors = {at: entry["error"] for at, entry in enumerate(data) if "error" in entry}
    assert {at: (error["code"], error["param"]) for at, error in errors.items()} == {
        1: (400, "input[1]"),
        2: (400, "input[2]"),
        4: (413, "input[4]"),
        5: (400, "input[5]"),
    }
    assert result["usage"] == {"prompt_tokens": 1, "total_tokens": 1, "images": 1}


@pytest.mark.parametrize("items", [[BROKEN, BROKEN], [None], [BROKEN]])
async def test_nothing_but_bad_items(worker: Worker, items: list[object]) -> None:
    job: dict[str, Any] = {"input": items, "model": "fake-clip", "on_error": "null"}
    result: Any = await answer(worker, job)
    assert [entry["embedding"] for entry in result["data"]] == [None] * len(items)
    assert all(entry["error"]["code"] == 400 for entry in result["data"])


async def test_an_image_for_a_text_model_names_the_models_that_take_it(worker: Worker) -> None:
    result: Any = await answer(worker, {"input": ["a", IMAGE], "model": "fake-text"})
    assert result["error"]["message"] == (
        "input[1]: the model fake-text does not embed images; served models that do: fake-clip"
    )


async def test_an_image_that_the_engine_refuses_is_null_too(
    engine: FakeEngine, worker: Worker
) -> None:
    engine.mode = "refuse"
    job: dict[str, Any] = {"image": [IMAGE, OTHER], "model": "fake-clip"}
    failed: Any = await answer(worker, job)
    assert failed["error"]["code"] == 400
    assert failed["error"]["param"].startswith("image[")
    kept: Any = await answer(worker, job | {"on_error": "null"})
    assert [entry["error"]["param"] for entry in kept["data"]] == ["image[0]", "image[1]"]


@pytest.mark.parametrize(
    ("extra", "sent"),
    [
        ({}, "a"),
        ({"input_type": "search_query"}, "query: a"),
        ({"task": "retrieval.passage"}, "a"),
        ({"task": "custom"}, "custom > a"),
        ({"input_type": "unheard-of"}, "a"),
        ({"prompt": "mine: ", "input_type": "query"}, "mine: a"),
    ],
)
async def test_texts_get_their_prefix_and_images_none(
    engine: FakeEngine, client: InfinityClient, extra: dict[str, str], sent: str
) -> None:
    prompts = {"fake-clip": {"query": "query: ", "custom": "custom > "}}
    worker = Worker(client, Catalogue(client, prompts=prompts), Batcher(client))
    result: Any = await answer(worker, {"input": ["a", IMAGE], "model": "fake-clip", **extra})
    assert vectors(result) == [list(embedding_of(sent)), list(embedding_of(IMAGE))]
    assert {item for request in engine.requests for item in request["input"]} == {sent, IMAGE}


async def test_a_prompt_that_the_model_does_not_have(worker: Worker) -> None:
    result: Any = await answer(worker, {"input": "a", "prompt_name": "query"})
    assert (result["error"]["code"], result["error"]["param"]) == (400, "prompt_name")


async def test_an_alias_is_answered_by_its_model(client: InfinityClient) -> None:
    catalogue = Catalogue(client, aliases={"text-embedding-3-small": "fake-clip"})
    worker = Worker(client, catalogue, Batcher(client))
    result: Any = await answer(worker, {"input": "a", "model": "text-embedding-3-small"})
    assert result["model"] == "fake-clip"
    listed: Any = await answer(worker, openai("/v1/models"))
    assert listed[0]["data"][1] == {
        "id": "fake-clip",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "infinity",
        "aliases": ["text-embedding-3-small"],
        "capabilities": ["embed", "image_embed"],
        "dimensions": 8,
        "max_tokens": None,
        "max_characters": MAX_TEXT_CHARS,
        "prompts": [],
    }
    one: Any = await answer(worker, openai("/v1/models/text-embedding-3-small"))
    assert one == [listed[0]["data"][1]]
    unknown: Any = await answer(worker, openai("/v1/models/gpt"))
    assert (
        "fake-clip, fake-rank, fake-class, text-embedding-3-small" in unknown[0]["error"]["message"]
    )


async def test_texts_that_would_be_cut_are_refused_for_who_wants_none_cut(
    client: InfinityClient,
) -> None:
    counters = {"fake-clip": TokenCounter.from_folder(Path(models.__file__).parent / "shapes_clip")}
    worker = Worker(client, Catalogue(client), Batcher(client), counters=counters)
    job: dict[str, Any] = {"input": [IMAGE, "a", "red " * 50], "model": "fake-clip"}
    cut: Any = await answer(worker, job)
    assert len(cut["data"]) == 3
    refused: Any = await answer(worker, job | {"truncate": "NONE"})
    assert refused["error"]["message"].startswith("input[2]: the text has more than the 20 tokens")
    kept: Any = await answer(worker, job | {"truncate": False, "on_error": "null"})
    assert [entry["embedding"] is None for entry in kept["data"]] == [False, False, True]


async def test_whether_texts_are_cut_cannot_be_told_without_a_tokenizer(worker: Worker) -> None:
    result: Any = await answer(worker, {"input": "a", "truncate": False})
    assert (result["error"]["code"], result["error"]["param"]) == (400, "truncate")


ERRORS: list[tuple[object, int, str, str | None]] = [
    ("not an object", 400, "invalid_request_error", "input"),
    ({}, 400, "invalid_request_error", "input"),
    ({"input": [1, 2]}, 400, "invalid_request_error", "input"),
    ({"input": ["a", IMAGE]}, 400, "invalid_request_error", "input[1]"),
    ({"input": "a", "dimensions": 9}, 400, "invalid_request_error", "dimensions"),
    ({"input": "a", "model": "gpt"}, 404, "model_not_found", "model"),
    ({"input": ["a"] * 11}, 413, "request_too_large", "input"),
    ({"input": "a" * (MAX_TEXT_CHARS + 1)}, 413, "request_too_large", "input[0]"),
]


@pytest.mark.parametrize(("job_input", "code", "kind", "param"), ERRORS)
async def test_the_callers_faults(
    client: InfinityClient, job_input: object, code: int, kind: str, param: str | None
) -> None:
    worker = Worker(client, Catalogue(client), Batcher(client), max_items=10)
    standard: Any = await answer(worker, job_input)
    # On the OpenAI route the job completes, with the error in a list of one.
    completed: Any = await answer(worker, openai("/v1/embeddings", job_input))
    for error in (standard["error"], completed[0]["error"]):
        assert (error["code"], error["type"], error["param"]) == (code, kind, param)


async def test_an_unknown_model_is_told_which_are_served(worker: Worker) -> None:
    result: Any = await answer(worker, {"input": "a", "model": "gpt"})
    assert "fake-text, fake-clip" in result["error"]["message"]


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/", "", "/v2/embeddings"])
async def test_an_unknown_route(worker: Worker, route: str) -> None:
    result: Any = await answer(worker, openai(route))
    assert (result[0]["error"]["code"], result[0]["error"]["type"]) == (404, "not_found_error")


async def test_a_route_that_is_no_string(worker: Worker) -> None:
    result: Any = await answer(worker, {"openai_route": 7})
    assert result[0]["error"]["param"] == "openai_route"


@pytest.mark.parametrize(
    ("mode", "code", "kind"),
    [
        ("full", 429, "rate_limit_error"),
        ("fail", 502, "engine_error"),
        ("nan", 502, "engine_error"),
        ("reset", 503, "engine_unavailable"),
        ("hang", 504, "engine_timeout"),
    ],
)
async def test_the_engines_faults_fail_the_job_on_both_routes(
    engine: FakeEngine, mode: str, code: int, kind: str
) -> None:
    engine.mode = mode
    async with InfinityClient(engine.url, timeout_s=1.5) as client:
        worker = Worker(client, Catalogue(client), Batcher(client), time_limit=TimeLimit(4.0))
        standard: Any
        standard, completed = await asyncio.gather(
            answer(worker, {"input": "a"}), answer(worker, openai("/v1/embeddings", {"input": "a"}))
        )
        assert (standard["error"]["code"], standard["error"]["type"]) == (code, kind)
        assert completed == standard


async def test_a_nan_names_the_item_as_the_caller_counts(
    engine: FakeEngine, worker: Worker
) -> None:
    engine.mode = "nan"
    result: Any = await answer(worker, {"input": [IMAGE, "a", "b"], "model": "fake-clip"})
    error = result["error"]
    assert error["code"] == 502
    assert error["param"] in ("input[0]", "input[2]")  # the image fails as well
    assert error["message"].startswith(error["param"])


async def test_a_refused_input_completes_the_openai_job(engine: FakeEngine, worker: Worker) -> None:
    engine.mode = "refuse"
    standard: Any = await answer(worker, {"input": "a"})
    assert standard["error"]["code"] == 400
    assert await answer(worker, openai("/v1/embeddings", {"input": "a"})) == [standard]


async def test_the_unforeseen_is_a_bland_500_with_details_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Worker(None, None, None)  # type: ignore[arg-type]  # what cannot happen
    with caplog.at_level(logging.ERROR):
        result: Any = await answer(broken, {"input": "a secret"})
    assert result["error"]["code"] == 500
    assert "NoneType" not in result["error"]["message"]
    assert "job-1" in caplog.text
    assert "AttributeError at " in caplog.text
    assert "handler.py" in caplog.text
    assert "Traceback" not in caplog.text
    assert "secret" not in caplog.text


async def test_cancelling_a_job_cancels_its_engine_request(
    engine: FakeEngine, worker: Worker
) -> None:
    engine.mode = "hang"
    job = asyncio.ensure_future(answer(worker, {"input": "a"}))
    async with asyncio.timeout(10):
        await engine.asked.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    async with asyncio.timeout(10):
        await engine.abandoned.wait()
