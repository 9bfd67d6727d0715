"""What is put before a text, by the model and by what the text is for.

Many models were trained with such prefixes and are worse without them. A caller names the purpose
in the words of its client (`input_type`, `task`, `prompt_name`) or sends the `prompt` itself.
"""

import re
from collections.abc import Mapping, Sequence

from infinity_worker.errors import InvalidRequest

Prompts = Mapping[str, str]

# One word for what clients call by several: Cohere; Voyage and sentence-transformers; Jina.
_PURPOSES = {
    "search_query": "query",
    "query": "query",
    "retrieval.query": "query",
    "search_document": "document",
    "document": "document",
    "passage": "document",
    "retrieval.passage": "document",
    "text-matching": "similarity",
    "similarity": "similarity",
    "separation": "clustering",
}
_E5: Prompts = {
    "query": "query: ",
    "document": "passage: ",
    "similarity": "query: ",
    "classification": "query: ",
    "clustering": "query: ",
}
_BGE_EN: Prompts = {"query": "Represent this sentence for searching relevant passages: "}
_BGE_ZH: Prompts = {"query": "为这个句子生成表示以用于检索相关文章："}  # noqa: RUF001  # as published
_NOMIC: Prompts = {
    "query": "search_query: ",
    "document": "search_document: ",
    "clustering": "clustering: ",
    "classification": "classification: ",
}
# By a model's name, as the authors' model cards have it.
_BUILT_IN: Sequence[tuple[str, Prompts]] = (
    (r"(^|/)(multilingual-)?e5-(small|base|large)(-v2)?$", _E5),
    (r"(^|/)bge-(small|base|large)-en(-v1\.5)?$", _BGE_EN),
    (r"(^|/)bge-(small|base|large)-zh(-v1\.5)?$", _BGE_ZH),
    (r"(^|/)nomic-embed-text-v", _NOMIC),
)


def built_in_prompts(source: str) -> Prompts:
    """The prefixes that a model family is known to want, by the model's id."""
    name = source.rstrip("/").lower()
    return next((prompts for pattern, prompts in _BUILT_IN if re.search(pattern, name)), {})


def prefix(prompts: Prompts, prompt: str | None, purpose: tuple[str, str] | None) -> str:
    """What to put before each text of a request.

    Args:
        prompts: the model's, by purpose.
        prompt: what the caller wants there, whatever the purpose.
        purpose: the field that names the purpose, and the name.

    Raises:
        InvalidRequest: the field is `prompt_name`, and the model has none of that name. The other
            fields are often sent to models that have no prompts at all.
    """
    if prompt is not None:
        return prompt
    if purpose is None:
        return ""
    field, name = purpose
    found = prompts.get(name, prompts.get(_PURPOSES.get(name.lower(), name.lower())))
    if found is None and field == "prompt_name":
        known = ", ".join(sorted(prompts)) or "none"
        raise InvalidRequest(
            f"prompt_name: this model has no prompt of that name; it has: {known}", "prompt_name"
        )
    return found or ""
