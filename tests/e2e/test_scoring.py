"""Rerank and classify through the whole stack, against the engine's own answers."""

import httpx
import pytest

from e2e.conftest import Stack
from infinity_worker.demo.shapes import all_captions
from processes import BOUND_S

QUERY = "a red circle"


def test_documents_are_ranked_as_the_engine_ranks_them(stack: Stack) -> None:
    documents = all_captions()
    body = {"query": QUERY, "documents": documents, "model": "shapes-rank"}
    own = httpx.post(f"{stack.engine_url}/rerank", json=body, timeout=BOUND_S).json()["results"]
    output = stack.runsync(body)["output"]
    assert documents[output["results"][0]["index"]] == QUERY
    scores = {each["index"]: each["relevance_score"] for each in own}
    for each in output["results"]:
        assert each["relevance_score"] == pytest.approx(scores[each["index"]], abs=1e-3)
    order = [each["relevance_score"] for each in output["results"]]
    assert order == sorted(order, reverse=True)


def test_more_documents_than_the_engine_takes_at_once(stack: Stack) -> None:
    documents = ["a blue square"] * 2_100
    documents[1_500] = QUERY
    body = {"query": QUERY, "docs": documents, "top_n": 2, "return_docs": True}
    (first, second) = stack.runsync(body)["output"]["results"]
    assert (first["index"], first["document"]) == (1_500, QUERY)
    assert second["document"] == "a blue square"


def test_texts_are_classified_over_the_openai_route(stack: Stack) -> None:
    body = {"input": ["a red circle", "two blue squares"], "model": "shapes-class"}
    reply = httpx.post(f"{stack.url}/v1/classify", json=body, timeout=BOUND_S).json()
    assert [row[0]["label"] for row in reply["data"]] == ["red", "blue"]
    for row in reply["data"]:
        assert sum(each["score"] for each in row) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("route", "body", "served"),
    [
        ("rerank", {"query": "a", "documents": ["b"], "model": "minilm"}, "shapes-rank"),
        ("classify", {"input": "a", "model": "minilm"}, "shapes-class"),
        ("embeddings", {"input": "a", "model": "shapes-rank"}, "minilm, shapes-clip"),
    ],
)
def test_the_wrong_model_is_told_the_right_ones(
    stack: Stack, route: str, body: object, served: str
) -> None:
    reply = httpx.post(f"{stack.url}/v1/{route}", json=body, timeout=BOUND_S).json()
    assert reply["error"]["code"] == 400
    assert reply["error"]["message"].endswith(served)
