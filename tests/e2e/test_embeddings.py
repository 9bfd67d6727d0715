"""Real clients, the real SDK, the real engine."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import runpod
from numpy.typing import NDArray
from PIL import Image

from e2e.conftest import Stack
from infinity_worker.demo.shapes import Scene, all_captions, all_scenes, caption, render

CAPTIONS = all_captions((1,))


def data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def matrix(data: list[Any]) -> NDArray[np.float32]:
    return np.array([entry["embedding"] for entry in data], np.float32)


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def test_the_openai_client_embeds_texts(stack: Stack) -> None:
    texts = ["A man is eating food.", "A man eats a meal.", "The stock market crashed today."]
    reply = stack.openai.embeddings.create(model="minilm", input=texts)
    vectors = np.array([item.embedding for item in reply.data])
    assert vectors.shape == (3, 384)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.7
    assert similarity[0, 2] < 0.3
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0


def test_the_openai_client_embeds_images(stack: Stack) -> None:
    scenes = [Scene("red", "circle"), Scene("blue", "star")]
    rng = np.random.default_rng(1)
    reply = stack.openai.embeddings.create(
        model="shapes-clip", input=[data_uri(render(scene, rng)) for scene in scenes]
    )
    captions = stack.openai.embeddings.create(
        model="shapes-clip", input=[caption(scene) for scene in scenes]
    )
    images = normalised(np.array([item.embedding for item in reply.data], np.float32))
    texts = normalised(np.array([item.embedding for item in captions.data], np.float32))
    assert (images @ texts.T).argmax(axis=1).tolist() == [0, 1]


def test_runpods_own_client(stack: Stack) -> None:
    endpoint = runpod.Endpoint("local", api_key="local")
    endpoint.rp_client.endpoint_url_base = f"{stack.url}/v2"
    picture = data_uri(render(Scene("green", "square"), np.random.default_rng(2)))
    texts = endpoint.run_sync({"input": {"input": ["hello", "world"], "model": "minilm"}})
    image = endpoint.run_sync({"input": {"image": picture, "model": "shapes-clip"}})
    assert matrix(texts["data"]).shape == (2, 384)
    assert matrix(image["data"]).shape[0] == 1
    assert image["usage"] == {"prompt_tokens": 0, "total_tokens": 0, "images": 1}


def test_the_right_caption_is_ranked_first_in_mixed_requests(stack: Stack) -> None:
    """Held-out renders and all captions travel in one list; the answer is in its order."""
    rng = np.random.default_rng(987_654)
    scenes = all_scenes((1,))
    right = total = 0
    for _ in range(5):
        chosen = [scenes[at] for at in rng.permutation(len(scenes))]
        pictures = [data_uri(render(scene, rng)) for scene in chosen]
        # Pictures and captions take turns in the list.
        mixed = [item for pair in zip(pictures, CAPTIONS, strict=True) for item in pair]
        job = stack.runsync({"input": mixed, "model": "shapes-clip"})
        assert [entry["index"] for entry in job["output"]["data"]] == list(range(len(mixed)))
        vectors = normalised(matrix(job["output"]["data"]))
        best = (vectors[0::2] @ vectors[1::2].T).argmax(axis=1)
        right += sum(CAPTIONS[at] == caption(scene) for at, scene in zip(best, chosen, strict=True))
        total += len(chosen)
    assert total >= 200
    assert right / total >= 0.95, f"{right} of {total}"


def test_a_mixed_list_equals_its_items_alone(stack: Stack) -> None:
    picture = data_uri(render(Scene("pink", "cross"), np.random.default_rng(3)))
    items = ["two blue squares", picture, "", "an orange star"]
    together = stack.runsync({"input": items, "model": "shapes-clip"})["output"]
    alone = [stack.runsync({"input": item, "model": "shapes-clip"})["output"] for item in items]
    expected = np.concatenate([matrix(result["data"]) for result in alone])
    assert np.allclose(matrix(together["data"]), expected, atol=1e-5)
    assert together["usage"]["images"] == 1


def test_float_and_base64_are_the_same_numbers(stack: Stack) -> None:
    body = {"input": "the same", "model": "minilm"}
    floats = stack.runsync(body | {"encoding_format": "float"})["output"]["data"][0]["embedding"]
    coded = stack.runsync(body | {"encoding_format": "base64"})["output"]["data"][0]["embedding"]
    assert np.array(floats, "<f4").tobytes() == base64.b64decode(coded)


def test_dimensions_are_cut_to_unit_length(stack: Stack) -> None:
    job = stack.runsync({"input": "short", "model": "minilm", "dimensions": 64})
    (vector,) = matrix(job["output"]["data"])
    assert vector.shape == (64,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_more_items_than_the_engine_takes_at_once(stack: Stack) -> None:
    picture = data_uri(render(Scene("red", "star"), np.random.default_rng(4)))
    items = ["word"] * 2_100 + [picture] * 40
    output = stack.runsync({"input": items, "model": "shapes-clip", "encoding_format": "base64"})[
        "output"
    ]
    assert len({entry["embedding"] for entry in output["data"][:2_100]}) <= 3
    assert len(output["data"]) == 2_140
    assert output["usage"]["images"] == 40


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": "a", "model": "gpt"}, 404, "model"),
        ({"input": "data:image/png;base64,AAAA", "model": "minilm"}, 400, "input[0]"),
        ({"input": "a", "dimensions": 385}, 400, "dimensions"),
        ({"input": "a" * 122_881}, 413, "input[0]"),
    ],
)
def test_errors_on_the_real_engine(
    stack: Stack, body: dict[str, Any], code: int, param: str
) -> None:
    job = stack.runsync(body)
    error = json.loads(job["error"])
    assert (job["status"], error["code"], error["param"]) == ("FAILED", code, param)


def test_an_open_model_list(stack: Stack) -> None:
    assert [model.id for model in stack.openai.models.list()] == [
        "minilm",
        "shapes-clip",
        "shapes-rank",
        "shapes-class",
    ]
