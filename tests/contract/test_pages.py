"""Which pages a caller wants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InvalidRequest, PageOutOfRange
from contract.pages import check_pages, select_pages
from contract.task import TaskOptions


@pytest.mark.parametrize(
    ("wanted", "pages"),
    [
        (None, (1, 2, 3, 4, 5, 6)),
        ("1-3", (1, 2, 3)),
        ("1,3,5-", (1, 3, 5, 6)),
        (" 2 - 3 , 6 ", (2, 3, 6)),
        ("4,1,4,1-2", (1, 2, 4)),
        ("6-", (6,)),
    ],
)
def test_pages_are_selected_in_the_files_order_and_once_each(wanted: str | None, pages: tuple[int, ...]) -> None:
    assert select_pages(wanted, 6) == pages


@pytest.mark.parametrize("wanted", ["7", "1-7", "7-", "1,100000"])
def test_a_page_beyond_the_end_is_the_callers_error(wanted: str) -> None:
    with pytest.raises(PageOutOfRange, match="beyond the end: the file has 6 pages"):
        select_pages(wanted, 6)


def test_a_file_without_pages_has_none_to_select() -> None:
    with pytest.raises(InvalidRequest, match="no pages"):
        select_pages(None, 0)


@pytest.mark.parametrize("wanted", ["", "0", "-3", "1-2-3", "a", "1,,2", "1;2", "1-\n2x", "01"])
def test_other_words_are_no_pages(wanted: str) -> None:
    with pytest.raises(InvalidRequest, match="page numbers from 1"):
        check_pages(wanted)


def test_a_range_that_runs_backwards_is_refused_before_the_file_is_known() -> None:
    with pytest.raises(InvalidRequest, match="5-2 runs backwards"):
        check_pages("1,5-2")


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=8))
def test_a_selection_is_the_union_of_its_ranges(ranges: list[tuple[int, int]]) -> None:
    wanted = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in ranges)
    TaskOptions(pages=wanted)
    check_pages(wanted)
    expected = {page for first, more in ranges for page in range(first, first + more + 1)}
    assert set(select_pages(wanted, 60)) == expected
