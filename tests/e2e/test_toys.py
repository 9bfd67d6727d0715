"""The text toys on the real engine, asked for over its own HTTP API."""

from typing import Any

import httpx
import pytest

from e2e.conftest import Stack
from infinity_worker.demo.shapes import Scene, all_scenes, caption
from infinity_worker.demo.wording import LABELS, is_held_out, shared
from processes import BOUND_S

# Training has seen neither these as queries nor as documents.
UNSEEN = [scene for scene in all_scenes() if is_held_out(scene)]
PARAGRAPH = "The cat sat on the mat, and nobody knew why it had come. " * 40


def ask(stack: Stack, route: str, **body: Any) -> dict[str, Any]:
    reply = httpx.post(f"{stack.engine_url}/{route}", json=body, timeout=BOUND_S)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def rank(stack: Stack, query: str, documents: list[str]) -> list[dict[str, Any]]:
    answer = ask(stack, "rerank", model="shapes-rank", query=query, documents=documents)
    results: list[dict[str, Any]] = answer["results"]
    return results


def test_the_engine_serves_each_by_what_it_is(stack: Stack) -> None:
    served = httpx.get(f"{stack.engine_url}/models", timeout=BOUND_S).json()["data"]
    capabilities = {model["id"]: model["capabilities"] for model in served}
    assert capabilities["shapes-rank"] == ["rerank"]
    assert capabilities["shapes-class"] == ["classify"]


@pytest.mark.parametrize(
    "query", ["a red circle", "A photo of two blue squares.", "three orange crosses"]
)
def test_the_best_of_all_captions_is_the_first(stack: Stack, query: str) -> None:
    documents = [caption(scene) for scene in all_scenes()]
    first, second, *_ = rank(stack, query, documents)
    assert documents[first["index"]] in query.lower()
    assert first["relevance_score"] > 0.85
    assert second["relevance_score"] < 0.85


@pytest.mark.parametrize("scene", UNSEEN[::4], ids=caption)
def test_scores_are_the_part_that_is_shared(stack: Stack, scene: Scene) -> None:
    scenes = all_scenes()
    results = rank(stack, caption(scene), [caption(other) for other in scenes])
    assert scenes[results[0]["index"]] == scene
    errors = [
        abs(result["relevance_score"] - shared(scene, scenes[result["index"]]) / 3)
        for result in results
    ]
    assert sum(errors) / len(errors) < 0.1


def test_documents_of_all_kinds_are_ranked(stack: Stack) -> None:
    documents = ["", PARAGRAPH, "日本語", "two red circles", "a green star"]
    results = rank(stack, "a photo of two red circles", documents)
    assert len(results) == len(documents)
    assert documents[results[0]["index"]] == "two red circles"


def test_a_text_is_labelled_with_its_colour(stack: Stack) -> None:
    texts = [*map(caption, UNSEEN), "My car is green.", PARAGRAPH, "", "日本語", "two circles"]
    expected = [scene.colour for scene in UNSEEN] + ["green"] + ["other"] * 4
    answer = ask(stack, "classify", model="shapes-class", input=texts)
    assert [scores[0]["label"] for scores in answer["data"]] == expected
    for scores in answer["data"]:
        assert {score["label"] for score in scores} == set(LABELS)
        assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-3)
