"""Text for drawn pages: receipts, running words, and random strings of printable ASCII."""

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random
from typing import Literal

from tools.reader.lexicon import ADJECTIVES, HEADINGS, ITEMS, OTHERS, TOTALS

Kind = Literal["receipt", "words", "random"]

PRINTABLE = [chr(code) for code in range(33, 127)]
ALPHANUMERIC = string.ascii_letters + string.digits
#: Characters that are mistaken for one another.
LOOKALIKES = "Il1|!i;:,.'`\"^O0oQDCcGg9qSs5Zz2B8vVuUwWxXkKpP-_~={[()]}<>/\\+tfj"


def write_lines(random: Random, kind: Kind, num_lines: int, num_columns: int) -> list[str]:
    """Lines of 1 to ``num_columns`` characters, without spaces at the end but perhaps at the start."""
    write = {"receipt": _receipt_line, "words": _running_line, "random": _random_line}[kind]
    return [(write(random, num_columns).rstrip() or "x")[:num_columns] for _ in range(num_lines)]


def _random_line(random: Random, columns: int) -> str:
    return _fill(random, columns, _random_string, full=0.5)


def _running_line(random: Random, columns: int) -> str:
    return _fill(random, columns, _word, full=0.8)


def _receipt_line(random: Random, columns: int) -> str:
    draw = random.random()
    if draw < 0.07:
        return random.choice("-=*-_.") * random.randint(max(3, columns - 6), max(3, columns))
    if draw < 0.22:
        return _fill(random, columns, _word, full=0.5).strip().center(columns).rstrip()
    if draw < 0.40:
        return _fill(random, columns, _word, full=0.7)
    if draw < 0.52:
        left, right = _total(random)
    elif draw < 0.58:
        left, right = _word(random), _word(random)
    else:
        left, right = _item(random)
    left = left[: max(1, columns - len(right) - 1)].rstrip()
    return (left + right.rjust(columns - len(left)))[:columns]


def _total(random: Random) -> tuple[str, str]:
    name = _cased(random, random.choice(TOTALS)) + random.choice(("", ":", " 8%", " 20%"))
    return name, random.choice(("", "$", "")) + _price(random)


def _item(random: Random) -> tuple[str, str]:
    parts = []
    if random.random() < 0.35:
        parts.append(f"{random.randint(1, 12)}{random.choice(('x', '', ' x'))}")
    if random.random() < 0.35:
        parts.append(_cased(random, random.choice(ADJECTIVES)))
    parts.append(_cased(random, random.choice(ITEMS)))
    suffix = random.choice((" A", " B", "-")) if random.random() < 0.1 else ""
    return " ".join(parts), random.choice(("", "", "$")) + _price(random) + suffix


def _fill(random: Random, columns: int, word: Callable[[Random], str], *, full: float) -> str:
    """Words up to a length: ``columns`` with probability ``full``, else any; perhaps indented."""
    length = columns if random.random() < full else random.randint(1, columns)
    line = " " * (random.randint(0, max(0, length - 4)) if random.random() < 0.2 else 0)
    line += word(random)[: max(1, length - len(line))]
    while random.random() >= 0.08:
        gap = 1 if random.random() < 0.85 else random.randint(2, 6)
        added = " " * gap + word(random)
        if len(line) + len(added) > length:
            break
        line += added
    return line


def _word(random: Random) -> str:
    draw = random.random()
    if draw < 0.50:
        return _cased(random, random.choice(random.choice((ITEMS, HEADINGS, OTHERS))))
    if draw < 0.62:
        return _price(random)
    if draw < 0.72:
        return str(random.randint(0, 10 ** random.randint(1, 6)))
    if draw < 0.78:
        return _date(random)
    if draw < 0.82:
        return f"{random.randint(0, 23):02d}:{random.randint(0, 59):02d}"
    if draw < 0.90:
        return _cased(random, random.choice(OTHERS)) + random.choice(".,:;!?")
    if draw < 0.94:
        return random.choice("$#@*&(+") + str(random.randint(0, 999))
    return "".join(random.choice(string.ascii_uppercase + string.digits) for _ in range(random.randint(2, 7)))


def _random_string(random: Random) -> str:
    draw = random.random()
    pool = PRINTABLE if draw < 0.5 else LOOKALIKES if draw < 0.65 else ALPHANUMERIC
    return "".join(random.choice(pool) for _ in range(random.randint(1, 9)))


def _cased(random: Random, word: str) -> str:
    draw = random.random()
    return word.upper() if draw < 0.35 else word.capitalize() if draw < 0.65 else word


def _price(random: Random) -> str:
    return f"{random.randint(0, 10 ** random.randint(1, 3))}.{random.randint(0, 99):02d}"


def _date(random: Random) -> str:
    year = random.choice((random.randint(1990, 2039), random.randint(10, 39)))
    return f"{random.randint(1, 31):02d}{random.choice('/-.')}{random.randint(1, 12):02d}{random.choice('/-.')}{year}"
