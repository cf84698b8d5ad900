"""PDF files as pages, by PDFium. Runs in media processes only, one job at a time: PDFium is not thread-safe."""

from __future__ import annotations

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image
from pypdfium2 import PdfDocument, PdfiumError, PdfPage

from contract.errors import DamagedDocument, EncryptedDocument, LimitExceeded
from workers.media.answers import DocumentFormat, PageSize
from workers.media.resolution import rendered_size

#: Pages after which the file is opened anew: PDFium keeps what pages share (fonts, pictures) until it is closed.
PAGES_PER_OPENING = 100

#: Longest text layer of one page, in characters; the Bible has 4 million.
MAX_TEXT_CHARS = 1_000_000


class PdfPages:
    """An opened PDF.

    Scripts are not run (this PDFium has no interpreter), links are not followed, attachments are not opened.
    """

    def __init__(self, data: bytes, *, max_pages: int, format: DocumentFormat = "pdf") -> None:  # noqa: A002
        """Open ``data``, which PDFium reads as it is: there is no second copy.

        Raises:
            EncryptedDocument: It wants a password.
            DamagedDocument: It can't be read or has no pages.
            LimitExceeded: It has more than ``max_pages``.
        """
        self.format = format
        self._data = data
        self._document = _open(data)
        self._num_looks = 0
        self.num_pages = len(self._document)
        if self.num_pages < 1:
            raise DamagedDocument("the document has no pages")
        if self.num_pages > max_pages:
            raise LimitExceeded(f"the document has {self.num_pages} pages; the limit is {max_pages}")

    def sizes(self) -> tuple[PageSize, ...]:
        """Size of every page in points, without rendering; zero by zero for one that can't be read."""
        return tuple(self._size(index) for index in range(self.num_pages))

    def picture(self, page: int, *, side: int, max_partition: int, max_pixels: int) -> Image.Image:
        """Render page ``page``, counted from 1, with the pixels that its grid keeps.

        Raises:
            DamagedDocument: The page can't be read.
            LimitExceeded: It needs more pixels than ``max_pixels``, or more memory than the process may have.
        """
        opened = self._page(page)
        try:
            width, height = rendered_size(*opened.get_size(), side=side, max_partition=max_partition)
            if width * height > max_pixels:
                raise LimitExceeded(f"page {page} takes {width} x {height} pixels; the limit is {max_pixels}")
            return _render(self._document, opened, width, height)
        except PdfiumError as exc:
            raise DamagedDocument(f"page {page} can't be rendered") from exc
        finally:
            opened.close()
            self._num_looks += 1

    def text(self, page: int) -> str | None:
        """The page's own text in the file's order; None where it has none.

        Raises:
            DamagedDocument: The page can't be read.
            LimitExceeded: More than ``MAX_TEXT_CHARS``.
        """
        opened = self._page(page)
        try:
            layer = opened.get_textpage()
            if layer.count_chars() > MAX_TEXT_CHARS:
                raise LimitExceeded(f"page {page} has more than {MAX_TEXT_CHARS} characters of text")
            lines = layer.get_text_bounded().replace("\x00", "").splitlines()
        except PdfiumError as exc:
            raise DamagedDocument(f"the text of page {page} can't be read") from exc
        finally:
            opened.close()
            self._num_looks += 1
        text = "\n".join(line.rstrip() for line in lines).strip("\n")
        return text if text.strip() else None

    def close(self) -> None:
        """Free what PDFium holds."""
        self._document.close()

    def _page(self, page: int) -> PdfPage:
        if self._num_looks >= PAGES_PER_OPENING:
            self._document.close()
            self._document = _open(self._data)
            self._num_looks = 0
        try:
            return self._document[page - 1]
        except PdfiumError as exc:
            raise DamagedDocument(f"page {page} can't be read") from exc

    def _size(self, index: int) -> PageSize:
        try:
            width, height = self._document.get_page_size(index)
        except PdfiumError:
            return PageSize(0.0, 0.0)
        return PageSize(round(width, 2), round(height, 2))


def _open(data: bytes) -> PdfDocument:
    try:
        document = PdfDocument(data)
        if document.get_formtype() != pdfium.FORMTYPE_NONE:
            document.init_forms()  # what was typed into a form is drawn only then
    except PdfiumError as exc:
        if exc.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise EncryptedDocument("the document opens with a password only") from exc
        raise DamagedDocument("the document can't be read as a PDF") from exc
    return document


def _render(document: PdfDocument, page: PdfPage, width: int, height: int) -> Image.Image:
    """Draw on white paper, stretched by less than a pixel to the size."""
    bitmap = pypdfium2.PdfBitmap.new_native(width, height, pdfium.FPDFBitmap_BGR)
    try:
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
        area = (bitmap, page, 0, 0, width, height, 0, pdfium.FPDF_ANNOT)
        pdfium.FPDF_RenderPageBitmap(*area)
        if document.formenv:
            pdfium.FPDF_FFLDraw(document.formenv, *area)
        image: Image.Image = bitmap.to_pil()  # Pillow copies: it keeps no BGR
        return image
    finally:
        bitmap.close()
