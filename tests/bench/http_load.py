"""A client that costs little beside what it measures: one request, written once, over connections that stay open."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What came of some seconds of requests.

    Attributes:
        latencies_s: Of every request, sorted.
        statuses: How many answers had which status.
    """

    seconds: float
    latencies_s: tuple[float, ...]
    statuses: Mapping[int, int]

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """The latency that so large a share of the requests stays below."""
        return 1000 * self.latencies_s[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))]


def request_bytes(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """A request as it goes over the wire."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "bench", "Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


class Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect."""
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        at = head.lower().index(b"content-length:") + len(b"content-length:")
        length = int(head[at : head.index(b"\r\n", at)])
        return int(head[9:12]), await self._reader.readexactly(length)

    async def follow(self, request: bytes) -> int:
        """Ask for a stream; its status, once the head of the answer is there."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head[9:12])

    async def read_until(self, mark: bytes) -> None:
        """Read the stream up to the first ``mark``."""
        await self._reader.readuntil(mark)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def press(url: str, request: bytes, *, connections: int, seconds: float) -> Load:
    """Ask the same over and over, on so many connections at once."""
    opened = [await Connection.open(url) for _ in range(connections)]
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    start = time.perf_counter()

    async def go_on(connection: Connection) -> None:
        while (before := time.perf_counter()) - start < seconds:
            status, _ = await connection.ask(request)
            latencies.append(time.perf_counter() - before)
            statuses[status] += 1

    await asyncio.gather(*map(go_on, opened))
    taken = time.perf_counter() - start
    for connection in opened:
        connection.close()
    return Load(taken, tuple(sorted(latencies)), statuses)
