"""The inputs that a media process has at hand: pages of one document come one job at a time, its bytes need not.

An input that is kept is asked for again with its entity tag before each use: the server says whether the bytes are
still those, and whether whoever asks may still read them. So nobody gets bytes that a fetch would not have given.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from contract.egress import EgressPolicy
from workers.media.documents import Document, DocumentLimits, open_document
from workers.media.fetch import fetch

#: Inputs kept at once: documents of several tenants take turns in fair order.
MAX_KEPT = 4


@dataclass
class Input:
    """Bytes, and the document that they are once somebody opened it."""

    data: bytes
    tag: str | None = None
    document: Document | None = None

    def opened(self, limits: DocumentLimits) -> Document:
        """The document; opened on first use, with the limits of that."""
        if self.document is None:
            self.document = open_document(self.data, limits)
        return self.document


class Inputs:
    """Fetches inputs and keeps the last few. For one thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Input] = OrderedDict()

    def get(self, url: str, *, policy: EgressPolicy | None, max_bytes: int, timeout_s: float, keep_bytes: int) -> Input:
        """The input behind a URL, fetched where what is kept is not it any more.

        Args:
            url: As `fetch`.
            policy: As `fetch`.
            max_bytes: As `fetch`.
            timeout_s: As `fetch`.
            keep_bytes: Most bytes that are kept afterwards, of all inputs; 0 keeps nothing.

        Raises:
            FleetError: As `fetch`.
        """
        name = _name(url, policy)
        kept = self._kept.pop(name, None)
        known = kept.tag if kept else None
        try:
            fetched = fetch(url, policy=policy, max_bytes=max_bytes, timeout_s=timeout_s, known=known)
        except BaseException:
            self._drop(kept)
            raise
        if fetched.body is None and kept:
            self._keep(name, kept, keep_bytes)
            return kept
        self._drop(kept)
        found = Input(fetched.body or b"", fetched.tag)
        if found.tag:
            self._keep(name, found, keep_bytes)
        return found

    def forget(self, found: Input) -> None:
        """Keep an input no longer: it is no document, or broke what read it."""
        for name in [name for name, kept in self._kept.items() if kept is found]:
            self._drop(self._kept.pop(name))

    def _keep(self, name: str, found: Input, most: int) -> None:
        if len(found.data) > most:
            return
        self._kept[name] = found
        while len(self._kept) > MAX_KEPT or sum(len(kept.data) for kept in self._kept.values()) > most:
            self._drop(self._kept.popitem(last=False)[1])

    def _drop(self, kept: Input | None) -> None:
        if kept and kept.document:
            kept.document.close()
            kept.document = None


def _name(url: str, policy: EgressPolicy | None) -> str:
    """What an input is kept under. A presigned URL differs in its signature each time, a caller's by its query."""
    if policy is not None:
        return f"caller {url}"
    parts = urlsplit(url)
    return f"presigned {parts.scheme}://{parts.netloc}{parts.path}"
