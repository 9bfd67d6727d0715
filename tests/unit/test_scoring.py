"""Rerank and classify, at the handler, with the fake engine."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import data_uri, encoded, picture
from fakes.fake_engine import FakeEngine, relevance_of
from infinity_worker.batching import Batcher
from infinity_worker.catalogue import Catalogue
from infinity_worker.handler import async_handler
from infinity_worker.infinity_client import MAX_TEXT_CHARS, MAX_TEXTS_PER_REQUEST, InfinityClient
from infinity_worker.worker import Worker

QUERY = "a red circle"
DOCUMENTS = ["a blue square", "a red circle", "a red square", "nothing", "a red circle"]
BEST = [1, 4, 2, 0, 3]


async def answer(worker: Worker, job_input: object) -> Any:
    return await async_handler({"id": "j", "input": job_input}, worker)


@pytest.mark.parametrize(
    "body",
    [
        {"query": QUERY, "documents": DOCUMENTS},
        {"query": QUERY, "docs": DOCUMENTS, "return_docs": False, "model": "fake-rank"},
        {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True},
        {"query": {"text": QUERY}, "documents": [{"text": each} for each in DOCUMENTS]},
        {"query": QUERY, "documents": DOCUMENTS, "top_n": None, "model": None},
    ],
)
@pytest.mark.parametrize("route", ["/v1/rerank", "/rerank", None])
async def test_documents_come_back_the_best_first(
    worker: Worker, body: dict[str, Any], route: str | None
) -> None:
    wrapped = {"openai_route": route, "openai_input": body}
    result = await answer(worker, wrapped if route else body)
    result = result[0] if route else result
    assert [each["index"] for each in result["results"]] == BEST
    assert [float(each["relevance_score"]) for each in result["results"]] == pytest.approx(
        [relevance_of(QUERY, DOCUMENTS[at]) for at in BEST]
    )
    assert "document" not in result["results"][0]
    assert result["model"] == "fake-rank"
    assert result["usage"] == {"prompt_tokens": 13, "total_tokens": 13}


@pytest.mark.parametrize("name", ["return_documents", "return_docs", "return_text"])
@pytest.mark.parametrize("top", ["top_n", "top_k"])
async def test_the_documents_come_back_as_they_were_sent(
    worker: Worker, name: str, top: str
) -> None:
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1], "id": 7}]
    body = {"query": QUERY, "documents": documents, name: True, top: 1}
    result = await answer(worker, body)
    assert [each["document"] for each in result["results"]] == [{"text": DOCUMENTS[1], "id": 7}]


@settings(deadline=None)
@given(st.lists(st.text("abc ", max_size=8), min_size=1, max_size=30), st.integers(1, 40))
async def test_the_order_is_that_of_the_scores(documents: list[str], top: int) -> None:
    async with FakeEngine() as engine, InfinityClient(engine.url) as client:
        worker = Worker(client, Catalogue(client), Batcher(client))
        body = {"query": "a b c", "documents": documents, "top_n": top}
        results = (await answer(worker, body))["results"]
    scores = [relevance_of("a b c", document) for document in documents]
    expected = sorted(range(len(documents)), key=lambda at: (-scores[at], at))[:top]
    assert [each["index"] for each in results] == expected


async def test_more_documents_than_the_engine_takes(engine: FakeEngine, worker: Worker) -> None:
    documents = [f"number {at}" for at in range(MAX_TEXTS_PER_REQUEST + 10)]
    documents[1_234] = "the needle"
    result = await answer(worker, {"query": "needle", "documents": documents, "top_n": 1})
    assert result["results"][0]["index"] == 1_234
    assert len(engine.requests) > 1
    assert max(len(request["documents"]) for request in engine.requests) <= MAX_TEXTS_PER_REQUEST
    assert result["usage"]["prompt_tokens"] == 2 * len(documents)


@pytest.mark.parametrize("texts", ["a red one", ["a red one"], [{"text": "a red one"}]])
async def test_labels_come_back_the_best_first(worker: Worker, texts: object) -> None:
    body = {"openai_route": "/v1/classify", "openai_input": {"input": texts}}
    (result,) = await answer(worker, body)
    assert [[each["label"] for each in row] for row in result["data"]] == [["red", "blue", "green"]]
    assert [float(each["score"]) for each in result["data"][0]] == [1, 0, 0]
    assert (result["object"], result["model"]) == ("classify", "fake-class")
    assert result["usage"]["prompt_tokens"] == 3


ERRORS: list[tuple[str, object, int, str]] = [
    ("rerank", {}, 400, "query"),
    ("rerank", None, 400, "input"),
    ("rerank", {"query": "a"}, 400, "documents"),
    ("rerank", {"query": "a", "documents": []}, 400, "documents"),
    ("rerank", {"query": "a", "documents": "b"}, 400, "documents"),
    ("rerank", {"query": "a", "documents": ["b"], "docs": ["b"]}, 400, "documents"),
    ("rerank", {"query": "a", "documents": ["b", 7]}, 400, "documents[1]"),
    ("rerank", {"query": "a", "documents": ["half \ud83d"]}, 400, "documents[0]"),
    ("rerank", {"query": "a", "documents": [{"image": "b"}]}, 400, "documents[0]"),
    ("rerank", {"query": ["a"], "documents": ["b"]}, 400, "query"),
    ("rerank", {"query": "a", "documents": ["b"], "top_n": 0}, 400, "top_n"),
    ("rerank", {"query": "a", "documents": ["b"], "model": "fake-text"}, 400, "model"),
    ("rerank", {"query": "a", "documents": ["b"], "model": "gpt"}, 404, "model"),
    ("rerank", {"query": "a", "documents": ["b"] * 10_001}, 413, "documents"),
    ("rerank", {"query": "a", "documents": ["b" * (MAX_TEXT_CHARS + 1)]}, 413, "documents[0]"),
    ("classify", {}, 400, "input"),
    ("classify", {"input": ["a"], "model": "fake-rank"}, 400, "model"),
    ("classify", {"input": data_uri(encoded(picture(), "PNG"))}, 400, "input[0]"),
    ("classify", {"input": ["a"], "raw_scores": "yes"}, 400, "raw_scores"),
    ("classify", {"input": ["a"] * 10_001}, 413, "input"),
    ("embeddings", {"input": "a", "model": "fake-rank"}, 400, "input[0]"),
]


@pytest.mark.parametrize(("route", "body", "code", "param"), ERRORS)
async def test_the_callers_faults(
    worker: Worker, route: str, body: object, code: int, param: str
) -> None:
    job = {"openai_route": f"/v1/{route}", "openai_input": body}
    (result,) = await answer(worker, job)
    assert (result["error"]["code"], result["error"]["param"]) == (code, param)


@pytest.mark.parametrize("mode", ["fail", "garbage", "shapeless", "half", "nan"])
@pytest.mark.parametrize("route", ["rerank", "classify"])
async def test_an_engine_that_answers_nonsense(
    engine: FakeEngine, worker: Worker, mode: str, route: str
) -> None:
    if (mode, route) == ("nan", "classify"):
        mode = "short"
    engine.mode = mode
    body = {"query": "a", "documents": ["b", "c"]} if route == "rerank" else {"input": ["b", "c"]}
    result = await answer(worker, {"openai_route": f"/v1/{route}", "openai_input": body})
    assert result["error"]["code"] == 502
