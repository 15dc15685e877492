"""The database specialist: schemas, migrations, queries in code, and patterns that get slow."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from agentpool.agent import Agent
from orchestrator.analysts import pysource
from orchestrator.analysts.findings import Finding, plural
from orchestrator.analysts.languages import PROGRAMMING, is_fixture
from orchestrator.analysts.lexical import LineIndex
from orchestrator.analysts.tree import SourceFile
from orchestrator.analysts.workbench import Workbench, conduct

_CREATE = re.compile(
    r"\bCREATE\s+(?:UNLOGGED\s+|TEMP(?:ORARY)?\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?[`\"\[]?(?P<name>[\w.]+)[`\"\]]?\s*\(",
    re.IGNORECASE,
)
_INDEX = re.compile(
    r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?[\w.\"`]*\s*ON\s+[\"`]?(?P<table>[\w.]+)[\"`]?\s*"
    r"(?:USING\s+\w+\s*)?\(\s*[\"`]?(?P<column>\w+)",
    re.IGNORECASE,
)
_FOREIGN = re.compile(
    r"(?:^|,)\s*[\"`]?(?P<column>\w+)[\"`]?\s+[\w()]+[^,\n]*\bREFERENCES\b", re.IGNORECASE | re.MULTILINE
)
_FOREIGN_KEY = re.compile(r"\bFOREIGN\s+KEY\s*\(\s*[\"`]?(?P<column>\w+)", re.IGNORECASE)
_UNBOUNDED = re.compile(
    r"^\s*(?P<verb>DELETE\s+FROM\s+[\w.\"`]+|UPDATE\s+[\w.\"`]+\s+SET\s+[^;]*?)\s*;",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_MIGRATION = re.compile(r"(^|/)(migrations?|alembic/versions|db/migrate|flyway|liquibase)/")
_RISKY: Final = (
    (
        "medium",
        "data-loss",
        re.compile(r"\bDROP\s+(?:TABLE|COLUMN|DATABASE)\b", re.IGNORECASE),
        "Data is dropped.",
        "Keep a way back: rename first, drop in a later release.",
    ),
    (
        "medium",
        "locks-table",
        re.compile(
            r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY)(?=[^;]*\bUSING\s+(?:btree|gin|gist|hash)\b)",
            re.IGNORECASE,
        ),
        "PostgreSQL blocks writes while it builds this index.",
        "Use CREATE INDEX CONCURRENTLY.",
    ),
    (
        "medium",
        "locks-table",
        re.compile(r"\bADD\s+COLUMN\b[^;,]*\bNOT\s+NULL\b(?![^;,]*\bDEFAULT\b)", re.IGNORECASE),
        "A NOT NULL column without a default fails on a table that has rows.",
        "Add it nullable, fill it, then constrain it.",
    ),
)
_QUERY_CALLS = frozenset(
    {
        "execute",
        "fetchone",
        "fetchall",
        "fetchrow",
        "scalar",
        "scalars",
        "all",
        "first",
        "one",
        "get",
        "filter",
        "find_one",
        "query",
        "select_related",
        "aggregate",
    }
)
_QUERY_OWNERS = re.compile(r"(^|\.)(objects|session|db|cursor|conn|connection|cur|engine|database|collection)$")
_SELECT_STAR = re.compile(r"[\"'`]\s*SELECT\s+\*\s+FROM\b", re.IGNORECASE)
#: Library to how its import reads, for languages other than Python.
_STORES: Final = {
    "Prisma": r"@prisma/client",
    "TypeORM": r"from ['\"]typeorm['\"]",
    "Sequelize": r"from ['\"]sequelize['\"]|require\(['\"]sequelize['\"]",
    "Mongoose": r"from ['\"]mongoose['\"]|require\(['\"]mongoose['\"]",
    "GORM": r"\"gorm\.io/gorm\"",
    "sqlx": r"\bsqlx::|jmoiron/sqlx",
    "Diesel": r"\bdiesel::",
    "JPA": r"\b(?:javax|jakarta)\.persistence\b",
    "ActiveRecord": r"< (?:ApplicationRecord|ActiveRecord::Base)",
    "Redis": r"['\"]ioredis['\"]|go-redis",
    "MongoDB": r"['\"]mongodb['\"]|go\.mongodb\.org",
}
_PYTHON_STORES: Final = {
    "sqlalchemy": "SQLAlchemy", "django": "Django", "peewee": "Peewee", "sqlite3": "SQLite", "apsw": "SQLite",
    "psycopg": "PostgreSQL", "psycopg2": "PostgreSQL", "asyncpg": "PostgreSQL", "redis": "Redis", "pymongo": "MongoDB",
    "motor": "MongoDB", "pymysql": "MySQL", "MySQLdb": "MySQL", "duckdb": "DuckDB", "elasticsearch": "Elasticsearch",
}  # fmt: skip


def run(agent: Agent) -> dict[str, Any]:
    """List what the project stores and how, and where that is risky or slow."""
    return conduct(agent, lambda bench: DataAnalyst(bench).work())


class DataAnalyst:
    """One look at one project's data."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._tables: list[dict[str, Any]] = []
        self._indexed: set[tuple[str, str]] = set()
        self._stores: Counter[str] = Counter()

    def work(self) -> None:
        """Schema first, then the code that uses it."""
        self._bench.step("reading SQL and schemas", 20, self._read_sql)
        self._bench.step("reading models and queries in code", 50, self._read_code)
        self._bench.step("looking at data files", 80, self._read_files)
        self._conclude()

    def _sql_files(self) -> list[SourceFile]:
        return [
            file
            for file in self._bench.tree.of({"SQL"})
            if file.role not in {"vendored", "test"} and not is_fixture(file.path)
        ]

    def _read_sql(self) -> None:
        files = self._sql_files()
        foreign: list[tuple[str, str, str, int]] = []
        for file in files:
            text = re.sub(r"--[^\n]*", lambda match: " " * len(match[0]), self._bench.tree.text(file.path) or "")
            index = LineIndex(text)
            for match in _CREATE.finditer(text):
                body = text[match.end() : _closing(text, match.end())]
                self._tables.append({"table": match["name"], "path": file.path, "line": index.line(match.start())})
                for found in [*_FOREIGN.finditer(body), *_FOREIGN_KEY.finditer(body)]:
                    foreign.append(
                        (match["name"], found["column"], file.path, index.line(match.end() + found.start("column")))
                    )
                if not re.search(r"\bPRIMARY\s+KEY\b|\bSERIAL\s+PRIMARY|\bUNIQUE\b", body, re.IGNORECASE):
                    self._report.add(
                        "low",
                        "no-primary-key",
                        f"{match['name']} has no primary key.",
                        path=file.path,
                        line=index.line(match.start()),
                        suggestion="Rows cannot be told apart; add one.",
                    )
                keys = re.search(r"PRIMARY\s+KEY\s*\(\s*[\"`]?(\w+)", body, re.IGNORECASE)
                self._indexed |= {(match["name"].lower(), keys[1].lower())} if keys else set()
            self._indexed |= {(match["table"].lower(), match["column"].lower()) for match in _INDEX.finditer(text)}
            self._report.extend(_check_sql(file, text, index))
        for table, column, path, line in foreign:
            if (table.lower(), column.lower()) not in self._indexed:
                self._report.add(
                    "low",
                    "foreign-key-without-index",
                    f"{table}.{column} refers to another table and has no index.",
                    path=path,
                    line=line,
                    suggestion="Joins and cascading deletes scan the table; add an index.",
                )
        self._report.metrics |= {
            "sql_files": len(files),
            "migrations": sum(_MIGRATION.search(file.path) is not None for file in self._bench.tree.files),
        }

    def _read_code(self) -> None:
        tree, hot = self._bench.tree, self._bench.hotspots
        for file in sorted(tree.of(PROGRAMMING, {"source"}), key=lambda file: (-hot.get(file.path, 0.0), file.path)):
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all code was read: time was up")
                break
            text = tree.text(file.path) or ""
            if file.language != "Python":
                self._stores.update(name for name, pattern in _STORES.items() if re.search(pattern, text))
            if file.language == "Python":
                module = pysource.parse(file.path, tree.data(file.path) or b"")
                if module.tree is not None:
                    tops = {one.module.split(".")[0] for one in pysource.imports(module.tree) if not one.level}
                    self._stores.update({_PYTHON_STORES[top] for top in tops & _PYTHON_STORES.keys()})
                    self._tables.extend(_models(file.path, module.tree))
                    self._report.extend(_queries_in_loops(file.path, module.tree))
            for match in _SELECT_STAR.finditer(text):
                self._report.add(
                    "info",
                    "select-star",
                    "SELECT * takes columns that are not needed, and changes with the table.",
                    path=file.path,
                    line=text.count("\n", 0, match.start()) + 1,
                    suggestion="Name the columns.",
                )

    def _read_files(self) -> None:
        stored = [
            file
            for file in self._bench.tree.files
            if re.search(r"\.(sqlite3?|db|mdb|parquet|csv|tsv|dump|bak)$", file.path)
        ]
        for file in stored:
            if file.size > 5_000_000 and file.role not in {"test"}:
                self._report.add(
                    "low",
                    "data-in-repository",
                    f"{file.size / 1e6:.0f} MB of data are in the repository.",
                    path=file.path,
                    suggestion="Keep data elsewhere; who clones pays for it for ever.",
                )
        self._report.metrics["data_files"] = len(stored)

    def _conclude(self) -> None:
        report = self._report
        stores = {name: count for name, count in self._stores.most_common() if count}
        report.metrics |= {"tables": len(self._tables), "stores": stores}
        report.artifacts["tables"] = self._tables
        counts = Counter(finding.severity for finding in report.ranked())
        told = f"uses {', '.join(stores)}" if stores else "no database library is used"
        report.summary = (
            f"{plural(len(self._tables), 'table or model', 'tables and models')}, "
            f"{plural(report.metrics.get('migrations', 0), 'migration')}; "
            f"{told}; {counts['high']} high, {counts['medium']} medium, {counts['low']} low findings."
        )
        grave = [one for one in report.ranked() if one.severity in {"critical", "high", "medium"}]
        report.next_steps.extend(f"Look at {one.kind} in {one.path}:{one.line}" for one in grave[:5])


def _closing(text: str, start: int) -> int:
    depth = 1
    for offset in range(start, min(len(text), start + 50_000)):
        depth += {"(": 1, ")": -1}.get(text[offset], 0)
        if depth == 0:
            return offset
    return min(len(text), start + 50_000)


def _check_sql(file: SourceFile, text: str, index: LineIndex) -> Iterator[Finding]:
    for match in _UNBOUNDED.finditer(text):
        if not re.search(r"\bWHERE\b", match[0], re.IGNORECASE):
            yield Finding(
                "medium",
                "no-where",
                file.path,
                index.line(match.start("verb")),
                f"{' '.join(match['verb'].split())[:60]} touches every row.",
                "Add WHERE, or say that all are meant.",
            )
    if _MIGRATION.search(file.path) and not re.search(r"(down|rollback|revert)[^/]*\.sql$", file.path):
        up = re.split(r"(?im)^--\s*(?:\+?goose down|migrate:down|rollback|down)\b", text)[0]
        for severity, kind, pattern, message, suggestion in _RISKY:
            for match in pattern.finditer(up):
                yield Finding(severity, kind, file.path, index.line(match.start()), message, suggestion)  # type: ignore[arg-type]


def _models(path: str, tree: ast.Module) -> Iterator[dict[str, Any]]:
    """Classes that stand for tables: SQLAlchemy's ``__tablename__``, Django's ``models.Model``, SQLModel."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {pysource.dotted(base) for base in node.bases}
        name = next(
            (
                ast.unparse(item.value).strip("'\"")
                for item in node.body
                if isinstance(item, ast.Assign)
                and any(isinstance(target, ast.Name) and target.id == "__tablename__" for target in item.targets)
            ),
            "",
        )
        if name or "models.Model" in bases or "SQLModel" in bases:
            yield {"table": name or node.name, "path": path, "line": node.lineno}


def _queries_in_loops(path: str, tree: ast.Module) -> Iterator[Finding]:
    """A query for each turn of a loop: where one query for all would do (the "N+1" pattern)."""
    for loop in ast.walk(tree):
        if not isinstance(loop, ast.For | ast.AsyncFor):
            continue
        names = {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}
        for node in (inner for statement in loop.body for inner in ast.walk(statement)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = pysource.dotted(node.func.value)
            used = {inner.id for argument in [*node.args, *(keyword.value for keyword in node.keywords)]
                    for inner in ast.walk(argument) if isinstance(inner, ast.Name)}  # fmt: skip
            text = str(node.args[0].value) if node.args and isinstance(node.args[0], ast.Constant) else ""
            is_read = node.func.attr != "execute" or text.lstrip().lower().startswith("select")
            if node.func.attr in _QUERY_CALLS and _QUERY_OWNERS.search(owner) and names & used and is_read:
                yield Finding(
                    "low",
                    "query-in-loop",
                    path,
                    node.lineno,
                    f"{owner}.{node.func.attr}() asks the database once for each turn of the loop.",
                    "Ask once for all (IN, join, prefetch), if the loop can be long.",
                )
                break
