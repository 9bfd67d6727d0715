"""The toys are kept in the repository: small, and safe to load."""

import json
from pathlib import Path

import pytest

from infinity_worker.demo import models

DEMO = Path(models.__file__).parent
TOYS = ("shapes_clip", "shapes_rank", "shapes_class")


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_is_small_and_free_of_code(toy: str) -> None:
    files = list((DEMO / toy).iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) < 1_200_000
    # Pickled weights could run code.
    assert {file.suffix for file in files} <= {".json", ".txt", ".safetensors"}


@pytest.mark.parametrize(("toy", "labels"), [("shapes_rank", 1), ("shapes_class", 9)])
def test_the_engine_tells_the_text_toys_apart_by_their_labels(toy: str, labels: int) -> None:
    config = json.loads((DEMO / toy / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert len(config["id2label"]) == labels


def test_each_demo_model_has_a_name_and_a_folder() -> None:
    demo = models.demo_settings()
    names, folders = demo["SERVED_MODEL_NAMES"].split(";"), demo["MODEL_NAMES"].split(";")
    assert names == ["minilm", "shapes-clip", "shapes-rank", "shapes-class"]
    assert [Path(folder).name for folder in folders[1:]] == list(TOYS)
