"""The schema and its history: each step is one transaction, so a kill in the middle leaves the one before."""

from __future__ import annotations

import apsw

from orchestrator.errors import StorageReadFailed

#: "OSdc" in ASCII; SQLite keeps it in the file's header, so that another program's file is not taken for ours.
APPLICATION_ID = 0x4F536463

_FIRST = """
CREATE TABLE projects (project_id TEXT PRIMARY KEY, path TEXT NOT NULL, created_at REAL NOT NULL) WITHOUT ROWID;

-- Heads outlive the events they counted: a sequence number is never used again.
CREATE TABLE event_heads (project_id TEXT PRIMARY KEY, newest INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
  project_id TEXT NOT NULL, seq INTEGER NOT NULL, published_at REAL NOT NULL, expires_at REAL NOT NULL,
  checksum INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (project_id, seq)
) WITHOUT ROWID;
-- Ids are remembered longer than the events, so that a late retry is still not published twice.
CREATE TABLE event_ids (
  project_id TEXT NOT NULL, event_id TEXT NOT NULL, seq INTEGER NOT NULL, published_at REAL NOT NULL,
  PRIMARY KEY (project_id, event_id)
) WITHOUT ROWID;
CREATE TABLE consumers (
  project_id TEXT NOT NULL, name TEXT NOT NULL, event_type TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (project_id, name, event_type)
) WITHOUT ROWID;
CREATE TABLE dead_letters (
  project_id TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (project_id, id)
) WITHOUT ROWID;
CREATE TABLE deliveries (
  project_id TEXT NOT NULL, id TEXT NOT NULL, next_at REAL NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (project_id, id)
) WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (next_at);
CREATE TABLE claims (project_id TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (project_id, key)) WITHOUT ROWID;

CREATE TABLE results (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT, project_id TEXT NOT NULL, id TEXT NOT NULL, issue_id TEXT NOT NULL,
  agent_type TEXT NOT NULL, agent_id TEXT NOT NULL, round INTEGER NOT NULL, status TEXT NOT NULL,
  stored_at REAL NOT NULL, is_announced INTEGER NOT NULL DEFAULT 0, checksum INTEGER NOT NULL, body BLOB NOT NULL,
  UNIQUE (project_id, id)
);
CREATE INDEX results_issue ON results (project_id, issue_id, ordinal);
CREATE INDEX results_type ON results (project_id, agent_type, ordinal);
CREATE INDEX results_agent ON results (project_id, agent_id, ordinal);
CREATE INDEX results_project ON results (project_id, ordinal);
CREATE INDEX results_age ON results (stored_at);
CREATE INDEX results_open ON results (ordinal) WHERE is_announced = 0;
CREATE TABLE result_rounds (
  project_id TEXT NOT NULL, issue_id TEXT NOT NULL, agent_type TEXT NOT NULL, newest INTEGER NOT NULL,
  PRIMARY KEY (project_id, issue_id, agent_type)
) WITHOUT ROWID;

CREATE TABLE agents (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT, agent_id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL,
  status TEXT NOT NULL, agent_type TEXT NOT NULL, issue_id TEXT NOT NULL, run_id TEXT, spawned_by TEXT,
  started_at REAL, ended_at REAL, is_open INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX agents_project ON agents (project_id, ordinal);
CREATE INDEX agents_issue ON agents (project_id, issue_id, ordinal);
CREATE INDEX agents_status ON agents (status);
CREATE INDEX agents_spawned_by ON agents (project_id, spawned_by);
CREATE INDEX agents_open ON agents (ordinal) WHERE is_open = 1;
CREATE INDEX agents_durations ON agents (ended_at, started_at) WHERE ended_at IS NOT NULL AND started_at IS NOT NULL;

CREATE TABLE revoked_tokens (jti TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at);
CREATE TABLE answers (
  project_id TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, answer BLOB NOT NULL,
  created_at REAL NOT NULL, PRIMARY KEY (project_id, key)
);
CREATE INDEX answers_age ON answers (created_at);

CREATE TABLE runs (
  ordinal INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL,
  status TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX runs_project ON runs (project_id, ordinal);
CREATE INDEX runs_status ON runs (status);

CREATE TABLE knowledge (
  id INTEGER PRIMARY KEY, project_id TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, result_id TEXT,
  note_id TEXT, agent_type TEXT, issue_id TEXT, author TEXT, created_at REAL NOT NULL
);
CREATE INDEX knowledge_result ON knowledge (project_id, result_id);
CREATE TABLE health (id INTEGER PRIMARY KEY, beats INTEGER NOT NULL);
-- Words are split by orchestrator.storage.words; the index holds no second copy of the text.
CREATE VIRTUAL TABLE knowledge_words USING fts5 (
  words, scope, content = '', contentless_delete = 1, tokenize = 'porter unicode61'
);
"""

#: Step n brings a file from version n to n + 1. Steps are only ever added.
MIGRATIONS: tuple[str, ...] = (_FIRST,)
SCHEMA_VERSION = len(MIGRATIONS)


def migrate(connection: apsw.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> int:
    """Bring the file to the newest version and return it.

    Raises StorageReadFailed when the file is another program's or was written by a newer version.
    """
    version = _pragma(connection, "user_version")
    application = _pragma(connection, "application_id")
    is_empty = version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(0,)]
    if application != APPLICATION_ID and not is_empty:
        raise StorageReadFailed(
            "orchestrator.db was not made by this program; choose another storage directory with --storage",
            slug="foreign_database",
        )
    if version > len(migrations):
        raise StorageReadFailed(
            f"the storage has schema version {version}, this program knows {len(migrations)}: "
            "it was written by a newer version; update the program or choose another --storage",
            slug="newer_schema",
            details={"found": version, "known": len(migrations)},
        )
    for step in range(version, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(migrations[step])
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {step + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return len(migrations)


def _pragma(connection: apsw.Connection, name: str) -> int:
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return int(row[0]) if row else 0
