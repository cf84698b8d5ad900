"""The visual words: what one patch of a tile can say about the print on it.

A transcript is a row of symbols: printable ASCII characters, one space per run of spaces, and a line end after each
line (a page end after the last). A symbol belongs to the patch that its centre lies on. A patch holds two symbols at
most, since a character's advance is more than half a patch; each says what it is and which place in its line it has,
and both share the number of their line. So copying a page is a look-up by address: line and place.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Most lines of a tile, and most symbols of a line, that have an address.
MAX_LINES, MAX_PLACES = 24, 40

#: Symbols that a patch can hold: 95 printable ASCII characters, line end, page end.
NUM_SYMBOLS = 97
LINE_END, PAGE_END = 95, 96

#: Where each kind of word begins. Kinds were added at the end, so that older weights keep their rows.
BLANK = 0
FIRST_SYMBOL = 1
LINE = FIRST_SYMBOL + NUM_SYMBOLS
FIRST_PLACE = LINE + MAX_LINES
SECOND_SYMBOL = FIRST_PLACE + MAX_PLACES
SECOND_PLACE = SECOND_SYMBOL + NUM_SYMBOLS
NUM_WORDS = SECOND_PLACE + MAX_PLACES

#: Shares of a patch's probability: of one symbol (what, line, place), and of two (what, line, place, what, place).
ONE_SHARES = (0.4, 0.3, 0.3)
TWO_SHARES = (0.25, 0.2, 0.15, 0.25, 0.15)

#: Most words that one patch says.
MAX_SHARES = len(TWO_SHARES)


@dataclass(frozen=True)
class Symbol:
    """One symbol of a transcript and its address.

    Attributes:
        code: 0..94 for printable ASCII from the space on, `LINE_END` or `PAGE_END`.
        line: Line of the page, 0..MAX_LINES - 1.
        place: Place in the line, 0..MAX_PLACES - 1; a run of spaces takes one.
    """

    code: int
    line: int
    place: int


def code_of(character: str) -> int:
    """The code of a printable ASCII character."""
    return ord(character) - 32


def words_of(symbols: tuple[Symbol, ...]) -> list[tuple[int, float]]:
    """What a patch with these symbols (none, one or two) says: words and their shares, which add up to 1."""
    if not symbols:
        return [(BLANK, 1.0)]
    first = symbols[0]
    words = [FIRST_SYMBOL + first.code, LINE + first.line, FIRST_PLACE + first.place]
    if len(symbols) == 1:
        return list(zip(words, ONE_SHARES, strict=True))
    second = symbols[1]
    words += [SECOND_SYMBOL + second.code, SECOND_PLACE + second.place]
    return list(zip(words, TWO_SHARES, strict=True))
