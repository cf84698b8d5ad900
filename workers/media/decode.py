"""Bytes of a stranger to a picture, within limits. Runs in media processes only."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

from PIL import Image, UnidentifiedImageError

from contract.errors import LimitExceeded, NotAnImage, TruncatedImage

#: Formats whose decoders are open to strangers. Pillow knows more; each one is attack surface.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

#: What Pillow's decoders raise on damaged data.
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, struct.error, zlib.error)


def count_frames(data: bytes) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Format and size of each frame of ``data``, without decoding any.

    Raises:
        NotAnImage, TruncatedImage: As ``decode_image``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            frames = []
            for frame in range(getattr(image, "n_frames", 1)):
                image.seek(frame)
                frames.append(image.size)
        except UnidentifiedImageError as exc:
            raise NotAnImage(f"the bytes are none of {', '.join(FORMATS)}") from exc
        except _DAMAGED as exc:
            raise TruncatedImage("the document ends early or is damaged") from exc
    return str(image.format), tuple(frames)


def decode_image(data: bytes, *, max_pixels: int, frame: int = 0) -> Image.Image:
    """Decode one frame of ``data``, from 0.

    Raises:
        NotAnImage: None of ``FORMATS``.
        LimitExceeded: More than ``max_pixels``, or more memory than the process may have.
        TruncatedImage: The data ends early or is damaged.
    """
    # Ours is the limit; Pillow's own would only warn between its limit and twice that.
    Image.MAX_IMAGE_PIXELS = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if frame:
                image.seek(frame)
        except UnidentifiedImageError as exc:
            raise NotAnImage(f"the bytes are none of {', '.join(FORMATS)}") from exc
        except MemoryError as exc:
            raise LimitExceeded("reading the picture's header needs more memory than allowed") from exc
        except _DAMAGED as exc:
            raise TruncatedImage("the picture's header is damaged") from exc
        pixels = image.width * image.height
        if pixels > max_pixels:
            raise LimitExceeded(
                f"the picture has {image.width} x {image.height} = {pixels} pixels; the limit is {max_pixels}"
            )
        try:
            image.load()
        except MemoryError as exc:
            raise LimitExceeded("decoding the picture needs more memory than allowed") from exc
        except _DAMAGED as exc:
            raise TruncatedImage("the picture ends early or is damaged") from exc
    return image
