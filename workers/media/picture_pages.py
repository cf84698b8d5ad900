"""Pictures as documents: every frame of a TIFF, GIF or WebP is a page, any other picture is one page."""

from __future__ import annotations

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from contract.errors import DamagedDocument, LimitExceeded, NotADocument, NotAnImage, TruncatedImage
from workers.media.answers import DocumentFormat, PageSize
from workers.media.decode import check_pixels, damage_is_told, load_image, open_image

_FORMATS: dict[str, DocumentFormat] = {"TIFF": "tiff", "GIF": "gif", "WEBP": "webp"}


class PicturePages:
    """A picture whose frames are pages. Going forward through them is cheap, going back may not be."""

    def __init__(self, data: bytes, *, max_pages: int, max_pixels: int) -> None:
        """Read the headers of ``data``; nothing is decoded.

        Raises:
            NotADocument: It is no picture.
            DamagedDocument: It is damaged.
            LimitExceeded: It has more than ``max_pages`` frames, or draws all of them on more than ``max_pixels``.
        """
        self._data, self._max_pixels = data, max_pixels
        try:
            self._image = open_image(data)
        except NotAnImage as exc:
            raise NotADocument("the bytes are no document") from exc
        except TruncatedImage as exc:
            raise DamagedDocument(str(exc)) from exc
        self.format: DocumentFormat = _FORMATS.get(self._image.format or "", "picture")
        if self.format == "gif":
            check_pixels(self._image, max_pixels)
        self.num_pages = self._count(max_pages)

    def sizes(self) -> tuple[PageSize, ...]:
        """Size of every page in pixels, without decoding; zero by zero for one that can't be read."""
        if self.format in ("gif", "webp"):  # one canvas for all frames
            return (PageSize(*self._image.size),) * self.num_pages
        return tuple(self._size(index) for index in range(self.num_pages))

    def picture(self, page: int, *, side: int, max_partition: int, max_pixels: int) -> Image.Image:
        """Decode page ``page``, counted from 1, with all its pixels.

        Raises:
            TruncatedImage: The page ends early or is damaged.
            LimitExceeded: It has more pixels than ``max_pixels``, or needs more memory than the process may have.
        """
        del side, max_partition  # a picture has the pixels that it has
        try:
            self._go_to(page)
            load_image(self._image, max_pixels=max_pixels)
        except (TruncatedImage, LimitExceeded):
            # After a failure Pillow may stand anywhere; other pages must not suffer.
            self._image = open_image(self._data)
            raise
        return self._image.copy()

    def text(self, page: int) -> None:
        """Pictures have no text of their own."""

    def close(self) -> None:
        """Free the picture."""
        self._image.close()

    def _count(self, max_pages: int) -> int:
        """Number of frames; counted one by one, so that a header that lies costs no more than the limit."""
        if self.format == "picture":
            return 1
        if self.format == "webp":
            count: int = getattr(self._image, "n_frames", 1)
        else:
            count = self._last_page(max_pages)
        if count > max_pages:
            raise LimitExceeded(f"the document has more pages than the limit of {max_pages}")
        return count

    def _last_page(self, max_pages: int) -> int:
        counted = open_image(self._data)
        for page in range(2, max_pages + 2):
            try:
                with damage_is_told("data"):
                    try:
                        _skip_to(counted, page)
                    except EOFError:
                        return page - 1
            except TruncatedImage:
                # A page whose place is known and whose header is damaged: it ends the document.
                return page - 1
        return max_pages + 1

    def _go_to(self, page: int) -> None:
        with damage_is_told("data"):
            if self.format != "gif":
                self._image.seek(page - 1)
                return
            if page - 1 < self._image.tell():
                self._image.seek(0)
            # Those between are drawn, and each may enlarge the canvas.
            while self._image.tell() < page - 1:
                self._image.seek(self._image.tell() + 1)
                check_pixels(self._image, self._max_pixels)

    def _size(self, index: int) -> PageSize:
        try:
            self._go_to(index + 1)
        except TruncatedImage:
            self._image = open_image(self._data)
            return PageSize(0.0, 0.0)
        return PageSize(*self._image.size)


def _skip_to(image: Image.Image, page: int) -> None:
    """Go to the next page, without drawing the one before."""
    if isinstance(image, GifImageFile):
        # What Pillow's own n_frames does, which knows no limit.
        image._seek(page - 1, False)
    else:
        image.seek(page - 1)
