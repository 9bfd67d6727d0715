import logging
from pathlib import Path

import pytest

from infinity_worker import tokens
from infinity_worker.demo import models
from infinity_worker.settings import Settings
from infinity_worker.tokens import TokenCounter, load_counters

SHAPES = Path(models.__file__).parent / "shapes_clip"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([""], 2),
        (["a red circle"], 5),
        (["a red circle", "two blue squares"], 10),
        (["a red circle " * 50], 20),
        ([], 0),
        (["a red circle"] * 2_000, 10_000),
    ],
)
async def test_tokens_are_counted_with_special_ones_and_where_the_model_cuts(
    texts: list[str], expected: int
) -> None:
    assert await TokenCounter.from_folder(SHAPES).count(texts) == expected


async def test_texts_that_the_model_would_cut_are_found() -> None:
    counter = TokenCounter.from_folder(SHAPES)
    assert await counter.cut(["a red circle", "a red circle " * 50, "", "é" * 19]) == [1, 3]
    assert await counter.count(["a red circle " * 50]) == counter.max_tokens == 20


@pytest.mark.parametrize(
    ("engine_says", "texts", "enough"),
    [
        (0, ["a"], True),
        (0, ["a" * 18] * 100, True),
        (0, ["a" * 19], False),  # 20 tokens at most, two of them special
        (0, ["é" * 9], True),
        (0, ["é" * 10], False),
        (1, ["a"], False),  # it counts something else
    ],
)
def test_the_engines_count_is_used_only_where_it_is_right(
    engine_says: int, texts: list[str], *, enough: bool
) -> None:
    counter = TokenCounter.from_folder(SHAPES)
    assert not counter.may_ask_engine(texts)
    counter.learn_how_the_engine_counts(counter._count(tokens._PROBES) - 6 + engine_says)
    assert counter.may_ask_engine(texts) == enough
    assert counter.from_engine(10, 3) == 16


def test_models_are_found_by_their_served_name() -> None:
    settings = Settings.from_env({"MODEL_NAMES": str(SHAPES), "SERVED_MODEL_NAMES": "shapes"})
    assert list(load_counters(settings)) == ["shapes"]


def test_every_demo_model_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    toys = {
        name: folder
        for name, folder in zip(
            *(value.split(";") for value in reversed(models.demo_settings().values())), strict=True
        )
        if name.startswith("shapes-")
    }
    settings = Settings.from_env(
        {"MODEL_NAMES": ";".join(toys.values()), "SERVED_MODEL_NAMES": ";".join(toys)}
    )
    assert list(load_counters(settings)) == ["shapes-clip", "shapes-rank", "shapes-class"]
    assert caplog.text == ""


@pytest.mark.parametrize("toy", ["shapes_rank", "shapes_class"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 2),
        ("a red circle", 5),
        ("Two RED circles!", 6),
        ("日本", 4),
        ("reddish greenery", 4),
        ("red " * 99, 64),
    ],
)
async def test_the_text_toys_can_read_any_text(toy: str, text: str, expected: int) -> None:
    assert await TokenCounter.from_folder(SHAPES.parent / toy).count([text]) == expected


def test_a_model_in_the_hubs_cache_is_found(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--org--shapes" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(SHAPES)
    settings = Settings.from_env({"MODEL_NAMES": "org/shapes", "HF_HOME": str(tmp_path)})
    assert list(load_counters(settings)) == ["org/shapes"]


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_one_that_cannot_be_loaded_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    settings = Settings.from_env({"MODEL_NAMES": str(tmp_path), "SERVED_MODEL_NAMES": "odd"})
    with caplog.at_level(logging.WARNING):
        assert load_counters(settings) == {}
    assert caplog.text.count("model odd: its tokenizer.json cannot be used") == 1
