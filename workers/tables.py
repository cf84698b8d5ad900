"""Rows of cells out of a table as a model wrote it."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

from contract.options import TableFormat

Rows = list[list[str]]

_RULE = re.compile(r":?-+:?")


def read_rows(text: str, form: TableFormat) -> Rows | None:
    """The table's rows, each with its cells' text; None where there is no table."""
    rows = {"markdown": _from_markdown, "html": _from_html, "csv": _from_csv}[form](text)
    return rows or None


def _from_markdown(text: str) -> Rows:
    """Pipe tables; a backslash keeps a pipe in its cell."""
    rows = []
    for line in map(str.strip, text.splitlines()):
        if not line.startswith("|") or len(line) < 2:
            continue
        inner = line[1:-1] if line.endswith("|") and not line.endswith("\\|") else line[1:]
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]
        if not all(_RULE.fullmatch(cell) for cell in cells):
            rows.append(cells)
    return rows


def _from_csv(text: str) -> Rows:
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error:
        return []
    # A text without a single comma is no table.
    return rows if any(len(row) > 1 for row in rows) else []


def _from_html(text: str) -> Rows:
    reader = _CellReader()
    # Words of the page: as markup, the parser would fail on them.
    reader.feed(text.replace("<![", "&lt;!["))
    reader.close()
    return [row for row in reader.rows if row]


class _CellReader(HTMLParser):
    """Collects the text of cells; merged cells stand once, where they begin."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Rows = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            if not self.rows:
                self.rows.append([])
            self.rows[-1].append("")
            self._in_cell = True
        elif tag == "br" and self._in_cell:
            self.rows[-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            cell = self.rows[-1][-1] + data
            self.rows[-1][-1] = cell.lstrip()
