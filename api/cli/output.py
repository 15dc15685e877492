"""How results reach the user: tables for people, JSON, CSV and YAML for programs, notes on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console

#: Control characters, shown as escapes: an agent's words must not steer the reader's terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
#: Columns of a table that is not shown on a terminal: nothing is cut.
UNBOUNDED_WIDTH = 20_000
#: Columns of prose that is not shown on a terminal.
PROSE_WIDTH = 100


class Column(NamedTuple):
    """One column: its heading, and the key (dotted) or function that gives a row's value."""

    title: str
    value: str | Callable[[Mapping[str, Any]], Any]

    def of(self, row: Mapping[str, Any]) -> Any:
        """The row's value, or None."""
        if not isinstance(self.value, str):
            return self.value(row)
        found: Any = row
        for part in self.value.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def plain(value: Any) -> str:
    """``value`` as text that is safe on a terminal; None is empty, objects are JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    if isinstance(value, (dict, list, tuple)):
        if not isinstance(value, dict) and all(isinstance(item, str) for item in value):
            return ", ".join(value).translate(_CONTROLS)
        value = json.dumps(value, ensure_ascii=False)
    return str(value).translate(_CONTROLS)


class Output:
    """Where a command speaks: ``stdout`` holds only what was asked for, all else goes to ``stderr``."""

    def __init__(self, format: str, *, is_quiet: bool = False, is_colored: bool = True) -> None:
        self.format = format
        self.is_quiet = is_quiet
        self.is_colored = is_colored and not os.environ.get("NO_COLOR")

    def is_terminal(self, stream: IO[str] | None = None) -> bool:
        """Whether ``stream`` (stdout by default) is a terminal."""
        return (stream or sys.stdout).isatty()

    def console(self, stream: IO[str] | None = None, *, width: int = UNBOUNDED_WIDTH) -> Console:
        """A rich console on ``stream`` (stdout by default), ``width`` columns wide when it is no terminal."""
        from rich.console import Console

        target = stream or sys.stdout
        # rich itself takes COLUMNS where it is set; a table in a pipe must not be cut for that.
        is_bounded = target.isatty() or (width != UNBOUNDED_WIDTH and bool(os.environ.get("COLUMNS")))
        return Console(
            file=target,
            width=None if is_bounded else width,
            no_color=not self.is_colored,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=False,
        )

    def rows(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, nothing: str = "nothing") -> None:
        """Print a list; ``nothing`` is said on stderr when it is empty and meant for a person."""
        if self.format == "json":
            self._json(list(rows))
        elif self.format == "yaml":
            self._yaml(list(rows))
        elif self.format == "csv":
            self._csv(rows, columns)
        elif rows:
            self._table(rows, columns)
        else:
            self.note(nothing)

    def document(self, document: Mapping[str, Any], *, render: Callable[[Console], None] | None = None) -> None:
        """Print one object; ``render`` draws it for a person, else it is shown as keys and values."""
        if self.format == "json":
            self._json(document)
        elif self.format == "yaml":
            self._yaml(document)
        elif self.format == "csv":
            flat = list(flatten(document))
            self._csv([dict(flat)], [Column(key, lambda row, key=key: row.get(key)) for key, _ in flat])  # type: ignore[misc]
        elif render is not None:
            self.draw(render)
        else:
            self.pairs(list(flatten(document)))

    def draw(self, render: Callable[[Console], None]) -> None:
        """Print what ``render`` draws; without a terminal it is ``PROSE_WIDTH`` wide."""
        console = self.console(width=PROSE_WIDTH)
        with console.capture() as captured:
            render(console)
        self._trimmed(captured.get())

    def pairs(self, pairs: Sequence[tuple[str, Any]]) -> None:
        """Print names and values below one another."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs:
            table.add_row(Text(plain(name)), Text(plain(value)))
        self._print(table)

    def text(self, text: str) -> None:
        """Print a text as it is, but for control characters."""
        sys.stdout.write(text.translate(_CONTROLS) + "\n")

    def raw(self, data: bytes) -> None:
        """Print bytes: untouched into a pipe or file, without control characters on a terminal."""
        if self.is_terminal():
            sys.stdout.write(data.decode("utf-8", "replace").replace("\r\n", "\n").translate(_CONTROLS))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
        sys.stdout.flush()

    def line(self, document: Mapping[str, Any]) -> None:
        """Print one object of an endless list at once: JSON of one line."""
        sys.stdout.write(json.dumps(document, ensure_ascii=True) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell a person something on stderr, unless quiet."""
        if not self.is_quiet:
            sys.stderr.write(text.translate(_CONTROLS) + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Tell something on stderr that must not be missed."""
        sys.stderr.write(f"Warning: {text.translate(_CONTROLS)}\n")
        sys.stderr.flush()

    # -- formats --------------------------------------------------------------------------------

    def _json(self, value: Any) -> None:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not _is_utf8()) + "\n")

    def _yaml(self, value: Any) -> None:
        import yaml

        # Through JSON, so that only plain types reach YAML.
        document = json.loads(json.dumps(value))
        sys.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=_is_utf8()))

    def _csv(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([column.title.lower().replace(" ", "_") for column in columns])
        for row in rows:
            writer.writerow([_cell(column.of(row)) for column in columns])

    def _table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column.title.upper(), overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(column.of(row))) for column in columns))
        self._print(table)

    def _print(self, renderable: Any) -> None:
        console = self.console()
        with console.capture() as captured:
            console.print(renderable)
        self._trimmed(captured.get())

    def _trimmed(self, text: str) -> None:
        # Columns are padded to their width; blanks at the ends of lines help nobody.
        sys.stdout.write("".join(line.rstrip() + "\n" for line in text.splitlines()))


def flatten(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of an object as dotted names and values, in order."""
    pairs: list[tuple[str, Any]] = []
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs.extend(flatten(value, name + "."))
        else:
            pairs.append((name, value))
    return pairs


def _cell(value: Any) -> str:
    text = plain(value)
    # A spreadsheet would take these as formulas (CWE-1236).
    return "'" + text if text[:1] in ("=", "@") or (text[:1] in "+-" and not _is_number(text)) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
