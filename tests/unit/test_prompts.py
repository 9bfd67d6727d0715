import pytest

from infinity_worker.errors import InvalidRequest
from infinity_worker.prompts import built_in_prompts, prefix


@pytest.mark.parametrize(
    ("source", "query", "document"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("/models/multilingual-e5-base/", "query: ", "passage: "),
        ("intfloat/e5-mistral-7b-instruct", "", ""),
        ("intfloat/multilingual-e5-large-instruct", "", ""),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("BAAI/bge-m3", "", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("sentence-transformers/all-MiniLM-L6-v2", "", ""),
    ],
)
def test_what_model_families_want(source: str, query: str, document: str) -> None:
    prompts = built_in_prompts(source)
    for name in ("query", "search_query", "retrieval.query"):
        assert prefix(prompts, None, ("input_type", name)) == query
    for name in ("document", "search_document", "retrieval.passage", "passage"):
        assert prefix(prompts, None, ("task", name)) == document


PROMPTS = {"query": "q: ", "special": "s: "}


@pytest.mark.parametrize(
    ("prompt", "purpose", "expected"),
    [
        (None, None, ""),
        (None, ("prompt_name", "special"), "s: "),
        (None, ("prompt_name", "query"), "q: "),
        (None, ("input_type", "Search_Query"), "q: "),
        (None, ("input_type", "anything"), ""),
        ("p: ", ("input_type", "query"), "p: "),
        ("", ("input_type", "query"), ""),
    ],
)
def test_the_prompt_itself_wins(
    prompt: str | None, purpose: tuple[str, str] | None, expected: str
) -> None:
    assert prefix(PROMPTS, prompt, purpose) == expected


def test_an_unknown_prompt_by_name_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(InvalidRequest, match="query, special"):
        prefix(PROMPTS, None, ("prompt_name", "other"))
