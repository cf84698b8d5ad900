"""Bytes of a stranger to a picture, within limits. Runs in media processes only."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from contract.errors import LimitExceeded, NotAnImage, TruncatedImage

#: Formats whose decoders are open to strangers. Pillow knows more; each one is attack surface.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

#: What Pillow's decoders raise on damaged data.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, struct.error, zlib.error)


def decode_image(data: bytes, *, max_pixels: int) -> Image.Image:
    """Decode the first frame of ``data``.

    Raises:
        NotAnImage: None of ``FORMATS``.
        LimitExceeded: More than ``max_pixels``, or more memory than the process may have.
        TruncatedImage: The data ends early or is damaged.
    """
    image = open_image(data)
    load_image(image, max_pixels=max_pixels)
    return image


def open_image(data: bytes) -> Image.Image:
    """Read the header of ``data``; its pixels wait for `load_image`.

    Raises:
        NotAnImage, LimitExceeded, TruncatedImage: As `decode_image`.
    """
    # Ours is the limit; Pillow's own would only warn between its limit and twice that.
    Image.MAX_IMAGE_PIXELS = None
    with damage_is_told("header"):
        return Image.open(io.BytesIO(data), formats=FORMATS)


def load_image(image: Image.Image, *, max_pixels: int) -> None:
    """Decode the frame at which ``image`` stands.

    Raises:
        LimitExceeded, TruncatedImage: As `decode_image`.
    """
    check_pixels(image, max_pixels)
    with damage_is_told("data"):
        image.load()


def check_pixels(image: Image.Image, max_pixels: int) -> None:
    """Check a picture's size by its header.

    Raises:
        LimitExceeded: It has more than ``max_pixels``.
    """
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise LimitExceeded(
            f"the picture has {image.width} x {image.height} = {pixels} pixels; the limit is {max_pixels}"
        )


@contextmanager
def damage_is_told(where: str) -> Iterator[None]:
    """Turn what Pillow raises on a stranger's bytes into our errors, and silence what it warns of.

    Args:
        where: What is being read, for the message.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError as exc:
            raise NotAnImage(f"the bytes are none of {', '.join(FORMATS)}") from exc
        except MemoryError as exc:
            raise LimitExceeded(f"decoding the picture's {where} needs more memory than allowed") from exc
        except _DAMAGED as exc:
            raise TruncatedImage(f"the picture's {where} ends early or is damaged") from exc
