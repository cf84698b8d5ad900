"""What the models are asked: one readable file per model family, ``contract/prompts/<family>.toml``.

The gateway reads the files at its start and puts the final text into every task; workers read none. How pictures stand
before the text is the engine's concern.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contract.catalogue import CATALOGUE, TaskKind
from contract.operations import Operation
from contract.options import TableFormat

#: Longest text of one entry, in characters.
MAX_ENTRY_CHARS = 20_000

Words = Annotated[str, Field(max_length=MAX_ENTRY_CHARS, pattern=r"\S")]


def _with_mark(mark: str) -> AfterValidator:
    def check(text: str) -> str:
        if text.count(mark) != 1:
            raise ValueError(f"the text must have {mark} once")
        return text

    return AfterValidator(check)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Query(_Entry):
    """What is asked of a picture or page."""

    image: Words


class FilmQuery(Query):
    """The same, and what is asked of a video's frames."""

    video: Words


class TableQuery(_Entry):
    """What is asked for a table, by the form of the answer."""

    markdown: Words
    html: Words
    csv: Words


class ClipTexts(_Entry):
    """What is asked about all clips of a video, once each has been described; ``{captions}`` stands for that."""

    summary: Annotated[Words, _with_mark("{captions}")]
    answer: Annotated[Words, _with_mark("{captions}"), _with_mark("{question}")]


class PromptBook(_Entry):
    """The prompts of one model family. Every operation has its entry."""

    ocr: FilmQuery
    markdown: Query
    caption: FilmQuery
    table: TableQuery
    chart: Query
    extract: FilmQuery
    clips: ClipTexts
    text_layer: Annotated[Words, _with_mark("{text}")] = Field(description="follows the prompt of a page")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file's text.

        Raises:
            ValueError: It isn't TOML.
            pydantic.ValidationError: An entry is missing, unknown or wrong.
        """
        return cls.model_validate(tomllib.loads(text))

    def query(self, operation: Operation, kind: TaskKind, table_format: TableFormat) -> str | None:
        """The prompt of an operation; None where the caller must give one."""
        if operation == "ask":
            return None
        if operation == "table":
            return str(getattr(self.table, table_format))
        entry: Query = getattr(self, operation)
        return entry.video if kind == "video" and isinstance(entry, FilmQuery) else entry.image

    def summary(self, operation: Operation, prompt: str) -> str:
        """The prompt over all clips, still with ``{captions}`` in it. A question is asked again over them."""
        asked = operation in ("ask", "extract")
        return self.clips.answer.replace("{question}", prompt) if asked else self.clips.summary


class PromptFileError(Exception):
    """A file of prompts is missing something; the message says which and what."""


def load_prompt_books(directory: Path | None = None) -> dict[str, PromptBook]:
    """The prompts of every family of the catalogue.

    Args:
        directory: The operator's own files, ``<family>.toml``; a family without one there keeps the package's.

    Raises:
        PromptFileError: The directory or a file can't be read or isn't whole, or a file names no family.
    """
    families = {card.prompts for card in CATALOGUE.values()}
    own = {} if directory is None else _listed(directory)
    if unknown := own.keys() - families:
        raise PromptFileError(f"{min(unknown)}.toml: there is no such family; there are {', '.join(sorted(families))}")
    package = resources.files("contract") / "prompts"
    return {family: _load(own.get(family, package / f"{family}.toml")) for family in sorted(families)}


def _listed(directory: Path) -> dict[str, Path]:
    try:
        return {path.name.removesuffix(".toml"): path for path in directory.iterdir() if path.suffix == ".toml"}
    except OSError as exc:
        raise PromptFileError(f"{directory}: {exc.strerror}") from exc


def _load(file: Traversable) -> PromptBook:
    try:
        return PromptBook.parse(file.read_text("utf-8"))
    except OSError as exc:
        raise PromptFileError(f"{file.name}: {exc.strerror}") from exc
    except ValueError as exc:  # pydantic's is one, too
        raise PromptFileError(f"{file.name}: {exc}") from exc
