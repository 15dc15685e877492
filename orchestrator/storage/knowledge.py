"""Full-text search over what earlier work decided, found and noted."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from orchestrator.clock import rfc3339
from orchestrator.errors import StorageReadFailed
from orchestrator.identifiers import new_id
from orchestrator.models import KnowledgeItem, Result
from orchestrator.storage.codec import clean_text, decode_checked
from orchestrator.storage.connection import fetch_all
from orchestrator.storage.engine import Repository
from orchestrator.storage.words import match_expression, scope_word, split_words

#: Field of a result -> kind of item.
KINDS = {
    "decisions": "decision",
    "findings": "finding",
    "warnings": "warning",
    "errors": "error",
    "next_steps": "next_step",
    "notes": "note",
}
#: Bounds on what one result adds to the index.
MAX_ITEMS = 500
MAX_TEXT = 4000
_TEXT_KEYS = ("decision", "title", "message", "summary", "description", "text", "rationale", "reason", "path", "file")

_INSERT = (
    "INSERT INTO knowledge (project_id, kind, text, result_id, note_id, agent_type, issue_id, author, created_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# bm25() gives better matches smaller numbers (sqlite.org/fts5.html); the scope's column weighs nothing.
_SEARCH = (
    "SELECT k.kind, k.text, -bm25(knowledge_words, 1.0, 0.0), k.result_id, k.agent_type, k.issue_id, k.created_at "
    "FROM knowledge_words JOIN knowledge AS k ON k.id = knowledge_words.rowid "
    "WHERE knowledge_words MATCH ?1 AND k.project_id = ?2 AND (?3 IS NULL OR k.issue_id = ?3) "
    "ORDER BY bm25(knowledge_words, 1.0, 0.0), k.id DESC LIMIT ?4"
)


class SqliteKnowledge(Repository):
    """Implements ``base.KnowledgeStore``."""

    async def add_note(self, project_id: str, text: str, *, issue_id: str | None, author: str, now: float) -> str:
        """Store a note and make it searchable; its id."""
        note_id = new_id("note")
        row = (project_id, "note", clean_text(text)[:MAX_TEXT], None, note_id, None, issue_id, clean_text(author), now)

        def operation(connection: apsw.Connection) -> None:
            _add(connection, row)

        await self._engine.write(operation)
        return note_id

    async def search_knowledge(
        self, project_id: str, query: str, *, limit: int, issue_id: str | None = None
    ) -> list[KnowledgeItem]:
        """Best first; any of the words may match; never raises for odd text."""
        words = match_expression(clean_text(query))
        if words is None or limit < 1:
            return []
        expression = f"scope : {scope_word(project_id)} AND words : ({words})"
        rows = await self._engine.scan(lambda c: fetch_all(c, _SEARCH, (expression, project_id, issue_id, limit)))
        return [
            KnowledgeItem(
                kind=kind,
                text=text,
                score=round(score, 6),
                result_id=result_id,
                agent_type=agent_type,
                issue_id=issue,
                timestamp=rfc3339(created_at),
            )
            for kind, text, score, result_id, agent_type, issue, created_at in rows
        ]


def index_result(connection: apsw.Connection, result: Result) -> None:
    """Make a result's items searchable, inside the transaction that stores it."""
    count = 0
    for field, kind in KINDS.items():
        entries = result.result.get(field)
        if not isinstance(entries, list):
            continue
        for entry in entries:
            text = _text_of(entry)
            if not text:
                continue
            if count == MAX_ITEMS:
                return
            count += 1
            _add(
                connection,
                (
                    result.project_id,
                    kind,
                    text,
                    result.id,
                    None,
                    result.agent_type,
                    result.issue_id,
                    result.agent_id,
                    result.stored_at,
                ),
            )


def forget_results(connection: apsw.Connection, results: list[tuple[str, str]]) -> None:
    """Remove the items of these ``(project_id, result_id)``."""
    for project_id, result_id in results:
        rows = fetch_all(
            connection, "SELECT id FROM knowledge WHERE project_id = ? AND result_id = ?", (project_id, result_id)
        )
        connection.executemany("DELETE FROM knowledge_words WHERE rowid = ?", rows)
        connection.executemany("DELETE FROM knowledge WHERE id = ?", rows)


def rebuild_index(connection: apsw.Connection) -> int:
    """Make all items anew from the stored results and the notes; how many there are."""
    connection.execute("DELETE FROM knowledge_words")
    connection.execute("DELETE FROM knowledge WHERE note_id IS NULL")
    for item_id, project_id, text in fetch_all(connection, "SELECT id, project_id, text FROM knowledge"):
        _index(connection, item_id, project_id, text)
    for check, body in fetch_all(connection, "SELECT checksum, body FROM results ORDER BY ordinal"):
        try:
            index_result(connection, decode_checked(body, check, Result))
        except StorageReadFailed:
            continue  # reported by the reads of that record, and by repair
    return int(fetch_all(connection, "SELECT count(*) FROM knowledge")[0][0])


def _add(connection: apsw.Connection, row: tuple[Any, ...]) -> None:
    connection.execute(_INSERT, row)
    _index(connection, connection.last_insert_rowid(), row[0], row[2])


def _index(connection: apsw.Connection, item_id: int, project_id: str, text: str) -> None:
    connection.execute(
        "INSERT INTO knowledge_words (rowid, words, scope) VALUES (?, ?, ?)",
        (item_id, " ".join(split_words(text)), scope_word(project_id)),
    )


def _text_of(entry: Any) -> str:
    if isinstance(entry, str):
        text = entry
    elif isinstance(entry, dict):
        parts = [str(entry[key]) for key in _TEXT_KEYS if isinstance(entry.get(key), (str, int))]
        text = " — ".join(parts) if parts else msgspec.json.encode(entry).decode("utf-8", "replace")
    else:
        return ""
    return clean_text(text).strip()[:MAX_TEXT]
