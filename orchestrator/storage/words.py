"""Words of a text, for the index and for queries alike; identifiers count whole and in their parts."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\w+", re.UNICODE)
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
#: Longer words are no words; they would only fill the index.
_LONGEST = 64
#: A query's further words add nothing to its ranking but cost.
_QUERY_WORDS = 32


def split_words(text: str) -> list[str]:
    """Lower-case words in order; ``getUserName`` and ``user_name`` also give their parts."""
    words = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if len(token) > _LONGEST:
            continue
        whole = token.strip("_").lower()
        if whole:
            words.append(whole)
        parts = [part.lower() for part in _PART.findall(token)]
        if len(parts) > 1:
            words.extend(parts)
    return words


def match_expression(query: str) -> str | None:
    """An FTS5 expression for any of the query's words; None when there are none.

    Each word is quoted, so nothing of FTS5's own syntax can come from a query.
    """
    unique = list(dict.fromkeys(split_words(query)))[:_QUERY_WORDS]
    return " OR ".join(f'"{word}"' for word in unique) if unique else None


def scope_word(project_id: str) -> str:
    """One word that stands for a project in the index (hexadecimal, so that tokenizers leave it alone)."""
    return "p" + project_id.encode("utf-8", "replace").hex()
