"""The files of prompts: whole, or the start fails and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.catalogue import CATALOGUE
from contract.operations import OPERATIONS
from contract.prompt_book import PromptFileError, load_prompt_books

PROMPTS = Path(__file__).parent.parent.parent / "contract" / "prompts"


@pytest.mark.parametrize("card", CATALOGUE.values(), ids=CATALOGUE)
@pytest.mark.parametrize("operation", [name for name, rule in OPERATIONS.items() if not rule.needs_prompt])
def test_every_model_has_words_for_every_operation(card, operation) -> None:  # type: ignore[no-untyped-def]
    book = load_prompt_books()[card.prompts]
    for kind in OPERATIONS[operation].kinds:
        for table_format in ("markdown", "html", "csv"):
            assert book.query(operation, kind, table_format)


def changed(directory: Path, old: str, new: str) -> Path:
    text = (PROMPTS / "ovis2.toml").read_text()
    assert old in text
    (directory / "ovis2.toml").write_text(text.replace(old, new))
    return directory


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[markdown]", "[markup]", "markdown\n  Field required"),
        ("html =", "xml =", "table.html\n  Field required"),
        ("[ocr]", "[ocr]\nprompt = 'x'", "ocr.prompt\n  Extra inputs"),
        ('image = "Describe the image."', 'image = " "', "caption.image"),
        ("{captions}", "", "must have {captions} once"),
        ("[ocr]", "[ocr", "ovis2.toml"),
    ],
    ids=["missing operation", "missing form", "unknown entry", "blank", "missing mark", "no TOML"],
)
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(PromptFileError) as caught:
        load_prompt_books(changed(tmp_path, old, new))
    assert said in str(caught.value)
    assert "ovis2.toml" in str(caught.value)


def test_a_file_replaces_one_family_and_leaves_the_others(tmp_path: Path) -> None:
    books = load_prompt_books(changed(tmp_path, "Describe the image.", "What is this?"))
    assert books["ovis2"].caption.image == "What is this?"
    assert books["ovis1.6"].caption.image == "Describe the image."


@pytest.mark.parametrize("name", ["ovis9.toml", None], ids=["unknown family", "no directory"])
def test_a_directory_that_makes_no_sense_is_refused(tmp_path: Path, name: str | None) -> None:
    if name:
        (tmp_path / name).touch()
    with pytest.raises(PromptFileError):
        load_prompt_books(tmp_path if name else tmp_path / "nowhere")


def test_words_of_a_caller_are_not_searched_for_marks() -> None:
    book = load_prompt_books()["ovis2"]
    assert "as JSON" in book.summary("extract", "Extract it as JSON: {}")
    assert "as JSON" not in book.summary("caption", "Describe it, not as JSON.")
    summary = book.summary("ask", "What about {captions}?")
    assert summary.index("{captions}") < summary.index("What about")
