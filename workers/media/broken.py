"""What becomes of a reader's error that nobody foresaw: the file is to blame, unless it speaks of this machine."""

from __future__ import annotations

from pathlib import Path
from traceback import extract_tb

from contract.errors import CallerError, DamagedDocument, DamagedVideo, TruncatedImage
from workers.media.documents import looks_like_a_document
from workers.media.protocol import Prepare, Sample, Work


class ReaderBroke(Exception):
    """A library failed on a stranger's bytes; what it holds in memory may be broken, too.

    Attributes:
        error: What the caller is told.
        where: Module and line that raised; neither the message nor any value, which may be the file's.
    """

    def __init__(self, error: CallerError, where: str) -> None:
        super().__init__(str(error))
        self.error, self.where = error, where


def is_ours(exc: Exception) -> bool:
    """Whether an error that is not of our tree speaks of this machine or this program, not of what was read.

    ``OSError``: files, pipes and programs; what libraries raise for damaged data is caught where they are called.
    ``ImportError``: something isn't installed. ``RuntimeError`` itself: no thread can be started; libraries derive
    their own from it. The same file may go well another time or elsewhere.
    """
    return isinstance(exc, OSError | ImportError) or type(exc) is RuntimeError


def blamed_on(work: Work, data: bytes, exc: Exception) -> ReaderBroke:
    """The error of a job over ``data`` that the file is to blame for."""
    if isinstance(work, Prepare):
        kind: type[CallerError] = TruncatedImage if work.page is None else DamagedDocument
    elif isinstance(work, Sample) or not looks_like_a_document(data):
        kind = DamagedVideo
    else:
        kind = DamagedDocument
    last = extract_tb(exc.__traceback__)[-1]
    return ReaderBroke(
        kind(f"the file can't be read: it makes its reader fail ({type(exc).__name__})"),
        f"{Path(last.filename).name}:{last.lineno}",
    )
