"""Lists of ids that sort by creation, page by page, as OpenAI's clients ask for them: after an id, in either order."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import redis.asyncio

from api_gateway.errors import Refused
from api_gateway.store_calls import store_call
from contract.errors import InvalidRequest

T = TypeVar("T")

#: Ids that one request looks at: a filtered page may be short, and still lead on.
_MAX_SCANNED = 10_000

#: Ids that are read at once, at the least, where some may be left out.
_BATCH = 200


@dataclass(frozen=True)
class IdPage:
    """Which page.

    Attributes:
        limit: Most records of it.
        after: The last id of the page before; None for the first page.
        newest_first: The order.
    """

    limit: int
    after: str | None
    newest_first: bool = True


def checked_after(after: str | None, ids: re.Pattern[str]) -> str | None:
    """The parameter ``after`` of a list whose ids match ``ids``.

    Raises:
        Refused: It is no such id.
    """
    if after is not None and not ids.fullmatch(after):
        raise Refused.parameter("after", InvalidRequest("this isn't the id of something in this list"))
    return after


async def read_id_page(
    client: redis.asyncio.Redis,
    index: str,
    page: IdPage,
    read: Callable[[list[str]], Awaitable[list[T | None]]],
    keeps: Callable[[T], bool] | None = None,
) -> tuple[list[T], bool]:
    """Some records, and whether there are more.

    Args:
        client: Redis.
        index: Key of the sorted set of ids.
        page: Which.
        read: Reads records; None where one is gone.
        keeps: Which of them to keep; None keeps all.

    Raises:
        StoreUnavailable: Redis is away.
    """
    found: list[T] = []
    after, scanned, batch = page.after, 0, max(page.limit + 1, _BATCH if keeps else 0)
    while scanned < _MAX_SCANNED:
        ids = await _ids(client, index, after, batch, newest_first=page.newest_first)
        for record in await read(ids) if ids else []:
            if record is None or (keeps is not None and not keeps(record)):
                continue
            if len(found) == page.limit:
                return found, True
            found.append(record)
        if len(ids) < batch:
            return found, False
        after, scanned = ids[-1], scanned + len(ids)
    return found, bool(found)


async def _ids(
    client: redis.asyncio.Redis, index: str, after: str | None, count: int, *, newest_first: bool
) -> list[str]:
    bound = f"({after}" if after else None
    driver = cast(Any, client)  # the driver's types mix its sync and async replies
    async with store_call():
        if newest_first:
            ids: list[str] = await driver.zrevrangebylex(index, bound or "+", "-", start=0, num=count)
        else:
            ids = await driver.zrangebylex(index, bound or "-", "+", start=0, num=count)
    return ids
