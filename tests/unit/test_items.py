import pytest

from infinity_worker.items import MalformedItem, read_item

URL = "https://host/a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", (None, "a")),
        ("", (None, "")),
        ({"text": "a"}, ("text", "a")),
        ({"text": ""}, ("text", "")),
        ({"image": URL}, ("image", URL)),
        ({"url": URL}, ("image", URL)),
        ({"bytes": "abc"}, ("image", "abc")),
        ({"type": "text", "text": "a"}, ("text", "a")),
        ({"type": "image_url", "image_url": URL}, ("image", URL)),
        ({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, ("image", URL)),
        ({"type": "image_base64", "image_base64": "abc"}, ("image", "abc")),
        ({"image_url": URL}, ("image", URL)),
        ({"audio": URL}, ("audio", URL)),
        ({"type": "audio_url", "audio_url": {"url": URL}}, ("audio", URL)),
        ({"type": "input_audio", "input_audio": {"data": "ab", "format": "wav"}}, ("audio", "ab")),
        ({"text": "a", "image": None, "id": 7}, ("text", "a")),
        ({"content": [{"type": "text", "text": "a"}]}, ("text", "a")),
        ({"content": [{"type": "image_url", "image_url": {"url": URL}}]}, ("image", URL)),
    ],
)
def test_the_shapes_of_many_clients(value: object, expected: tuple[str | None, str]) -> None:
    assert read_item(value) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "not null"),
        (7, "not a number"),
        (True, "not a boolean"),
        (["a"], "not a list"),
        ([1, 2], "check_embedding_ctx_length=False"),
        ({}, "no text and no image"),
        ({"id": 7}, "no text and no image"),
        ({"content": []}, "no text and no image"),
        ({"content": ["a"]}, "no text and no image"),
        ({"content": [{"content": [{"text": "a"}]}]}, "no text and no image"),
        ({"text": 7}, "`text` must be a string, not a number"),
        ({"type": "text"}, "of type `text` and has no field `text`"),
        ({"type": "text", "image": URL}, "of type `text` and has no field `text`"),
        ({"type": "image_url", "image_url": {}}, "`image_url` must be a string, not null"),
        ({"text": "a", "image": URL}, "one embedding of all"),
        ({"type": "text", "text": "a", "image_url": URL}, "one embedding of all"),
        ({"content": [{"text": "a"}, {"image": URL}]}, "one embedding of all"),
    ],
)
def test_what_is_no_item(value: object, words: str) -> None:
    with pytest.raises(MalformedItem, match=words):
        read_item(value)
