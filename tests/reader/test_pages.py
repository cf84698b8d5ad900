"""What is drawn is what the labels say."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from ovis_engine.tiling import tile_image
from tests.reader.conftest import CLEAN
from tools.reader.copying import transcript_of
from tools.reader.drawing import draw_page, draw_scene
from tools.reader.first_weights import token_of
from tools.reader.fonts import Face, FontsMissingError, find_faces
from tools.reader.layout import PATCH, SIDE, LayoutError, Page, PageWishes, lay_out, transcribed
from tools.reader.pages import TRAINING, PageSet
from tools.reader.tower_stage import targets, tile_of
from tools.reader.vocabulary import LINE_END, MAX_SHARES, NUM_WORDS, PAGE_END, Symbol, words_of
from tools.reader.writing import write_lines

HELD_OUT = ("receipt", "random", "unseen", "small", "large", "dark", "slanted")


def columns_of(page: Page, line: int) -> dict[int, int]:
    """The column that each place of a line stands in."""
    return {symbol.place: column for column, symbol in transcribed(page.lines[line], line, last=False)}


def without(page: Page, line: int, column: int) -> Page:
    text = page.lines[line]
    lines = [*page.lines]
    lines[line] = text[:column] + " " + text[column + 1 :]
    return replace(page, lines=tuple(lines))


def ink_of(page: Page, line: int, column: int) -> tuple[float, float]:
    """Middle (down, right), in tile pixels, of what vanishes when one character is left out."""
    both = [tile_of(draw_page(Random(1), one, CLEAN)) for one in (page, without(page, line, column))]
    changed = np.abs(both[0].astype(int) - both[1]).sum(-1) > 60
    rows, across = np.nonzero(changed)
    assert rows.size
    top, left = (SIDE - changed.shape[0]) // 2, (SIDE - changed.shape[1]) // 2
    return (rows.min() + rows.max() + 1) / 2 + top, (across.min() + across.max() + 1) / 2 + left


@pytest.mark.parametrize("number", range(12))
def test_a_character_is_labelled_where_its_ink_is(pages: PageSet, number: int) -> None:
    page = pages.layout(number)
    random = Random(number)
    shown = [(patch, symbol) for patch, held in page.symbols.items() for symbol in held if 0 < symbol.code < LINE_END]
    for (row, column), symbol in random.sample(shown, min(4, len(shown))):
        down, right = ink_of(page, symbol.line, columns_of(page, symbol.line)[symbol.place])
        # A cell is an advance wide and two high; its ink lies anywhere within.
        advance = page.advance / page.scale
        assert abs(right - (column + 0.5) * PATCH) <= PATCH / 2 + 0.45 * advance
        assert abs(down - (row + 0.5) * PATCH) <= PATCH / 2 + 0.75 * advance


@pytest.mark.parametrize("number", range(12))
def test_the_symbols_spell_the_transcript(pages: PageSet, number: int) -> None:
    page = pages.layout(number)
    symbols = sorted(
        (symbol for held in page.symbols.values() for symbol in held), key=lambda one: (one.line, one.place)
    )
    assert tuple(token_of(symbol.code) for symbol in symbols) == transcript_of(page.text, page.symbols).tokens


def test_a_run_of_spaces_is_one_symbol_where_it_begins() -> None:
    found = transcribed("  ab   c", 3, last=True)
    assert [(column, symbol.place) for column, symbol in found] == [(2, 0), (3, 1), (4, 2), (7, 3), (8, 4)]
    assert [symbol.code for _, symbol in found] == [65, 66, 0, 67, PAGE_END]
    assert {symbol.line for _, symbol in found} == {3}


def test_no_patch_holds_two_lines_or_three_symbols(face: Face) -> None:
    tight = PageSet("tests/tight", PageWishes((face,), advances=((10.0, 10.4),)), CLEAN)
    held = [symbols for number in range(30) for symbols in tight.layout(number).symbols.values()]
    assert {len(symbols) for symbols in held} == {1, 2}
    assert all(len({symbol.line for symbol in symbols}) == 1 for symbols in held)


def test_a_page_that_is_laid_out_is_the_page_that_is_drawn(pages: PageSet) -> None:
    assert pages.layout(5) == pages.picture(5)[0]


def test_a_block_of_forty_lines_is_cut_in_four_without_shrinking(face: Face) -> None:
    wishes = PageWishes((face,), ((10.0, 14.0),), ("receipt",))
    page, picture = PageSet("tests/block", wishes, CLEAN, block=(40, 40), max_partition=4).picture(0)
    tiles = tile_image(picture, side=SIDE, max_partition=4)
    assert (tiles.rows, tiles.cols) == (2, 2)
    assert max(page.width, page.height) <= 2 * SIDE
    assert len(page.text.split("\n")) == 40
    assert sum(map(len, page.lines)) / 40 > 30


@pytest.mark.parametrize("held", [(), (Symbol(1, 2, 3),), (Symbol(1, 2, 3), Symbol(LINE_END, 2, 4))], ids=len)
def test_what_a_patch_says_adds_up_to_one(held: tuple[Symbol, ...]) -> None:
    words = words_of(held)
    assert sum(share for _, share in words) == pytest.approx(1)
    assert len({word for word, _ in words}) == len(words) <= MAX_SHARES
    assert all(0 <= word < NUM_WORDS for word, _ in words)


def test_targets_hold_what_each_patch_says(pages: PageSet) -> None:
    page = pages.layout(1)
    words, shares = targets([page.symbols, {}])
    assert shares.sum(-1).allclose(shares.new_ones(()))
    assert (words[1] == 0).all()
    (row, column), held = next(iter(page.symbols.items()))
    said = dict(zip(words[0, row * 24 + column].tolist(), shares[0, row * 24 + column].tolist(), strict=True))
    assert {word: pytest.approx(share) for word, share in words_of(held)}.items() <= said.items()


def test_no_held_out_page_shares_its_seed_with_a_training_page() -> None:
    # Seeds are texts that begin with the set's name and a stroke: equal seeds need equal names.
    names = [f"held-out/{name}" for name in HELD_OUT]
    assert not any(name.startswith(TRAINING) or TRAINING.startswith(name) for name in names)
    drawn = {name: PageSet(name, PageWishes(()), CLEAN).chance(7).random() for name in (TRAINING, *names)}
    assert len(set(drawn.values())) == len(drawn)


@pytest.mark.parametrize("kind", ["receipt", "words", "random"])
def test_lines_keep_to_their_columns_and_printable_ascii(kind: str) -> None:
    for columns in (3, 11, 32):
        lines = write_lines(Random(columns), kind, 40, columns)  # type: ignore[arg-type]
        assert all(1 <= len(line) <= columns and line == line.rstrip() for line in lines)
        assert all(32 <= ord(character) < 127 for line in lines for character in line)


def test_wishes_that_cannot_be_met_are_refused(face: Face) -> None:
    with pytest.raises(LayoutError, match="1000 tries"):
        lay_out(Random(1), PageWishes((face,)), ("x" * 41,))


def test_a_font_that_is_not_there_is_named() -> None:
    with pytest.raises(FontsMissingError, match=r"Nowhere Mono\.ttf"):
        find_faces(("Nowhere Mono.ttf",))


def test_a_scene_has_colours_but_needs_no_font() -> None:
    scene = draw_scene(Random(4))
    assert scene.mode == "RGB"
    assert len(scene.getcolors(scene.width * scene.height)) > 10
