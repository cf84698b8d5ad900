"""A decoded picture as the model gets it, and whether there is anything on it to read."""

from __future__ import annotations

import numpy as np
from PIL import Image

from contract.errors import LimitExceeded
from ovis_engine.tiling import to_rgb
from workers.media.ink import has_ink

#: Pixels above which a picture is halved (and so on) before it is searched for ink: print of that size stays visible.
_INK_PIXELS = 4_000_000

#: Mean grey level from which drawings with an alpha channel are light, and need dark paper to be seen.
_LIGHT = 128


def visible(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture in 8-bit RGB, and whether it has ink.

    Transparency is left out, as the reference does, but where that leaves a plain sheet: what only the alpha channel
    shows (black print on black that can be seen through) is then laid on paper of the other shade.

    Args:
        image: Any decoded picture; it is not changed.

    Raises:
        LimitExceeded: It needs more memory than the process may have.
    """
    try:
        rgb = image if image.mode == "RGB" else to_rgb(image)
        if _has_ink(rgb):
            return rgb, True
        if image.has_transparency_data:
            laid = _on_paper(image.convert("RGBA"))
            if _has_ink(laid):
                return laid, True
    except MemoryError as exc:
        raise LimitExceeded("converting the picture needs more memory than allowed") from exc
    return rgb, False


def _has_ink(rgb: Image.Image) -> bool:
    factor = 1
    while rgb.width * rgb.height > _INK_PIXELS * factor * factor:
        factor += 1
    return has_ink(np.asarray(rgb if factor == 1 else rgb.reduce(factor)))


def _on_paper(rgba: Image.Image) -> Image.Image:
    """Lay a drawing, plain but for its alpha channel, on paper that it stands out from."""
    # What stands behind full transparency may have another colour than what is seen.
    seen = np.asarray(rgba.reduce(8) if min(rgba.size) >= 8 else rgba)
    shown = seen[..., :3][seen[..., 3] > 0]
    light = bool(shown.size) and float(shown.mean()) >= _LIGHT
    paper = Image.new("RGBA", rgba.size, (0, 0, 0, 255) if light else (255, 255, 255, 255))
    return Image.alpha_composite(paper, rgba).convert("RGB")
