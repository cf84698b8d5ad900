"""Every error of the contract has its place in the one table."""

from __future__ import annotations

import pytest

from api_gateway.errors import HTTP_STATUS, RETRY_AFTER_S, Problem
from contract.error_info import ErrorInfo
from contract.errors import all_errors
from contract.refusals import json_pointer


def test_every_error_code_is_mapped_and_no_other() -> None:
    assert set(HTTP_STATUS) == set(all_errors())


def test_callers_mistakes_are_4xx_and_never_retryable() -> None:
    for code, error in all_errors().items():
        expected = HTTP_STATUS[code] < 500 and HTTP_STATUS[code] != 429
        assert expected is not error.retryable, code


def test_every_503_and_429_says_when_to_come_back() -> None:
    assert {code for code, status in HTTP_STATUS.items() if status in {429, 503}} == set(RETRY_AFTER_S)


def test_code_of_a_newer_worker_is_still_a_problem() -> None:
    problem = Problem.of(ErrorInfo(code="meteor_strike", detail="it fell", retryable=True))

    assert (problem.status, problem.code, problem.detail) == (500, "meteor_strike", "it fell")


@pytest.mark.parametrize(
    ("loc", "pointer"),
    [((), ""), (("inputs", 3, "url"), "/inputs/3/url"), (("metadata", "a/b~c", "[key]"), "/metadata/a~1b~0c")],
)
def test_pointers_follow_rfc_6901(loc: tuple[int | str, ...], pointer: str) -> None:
    assert json_pointer(loc) == pointer
