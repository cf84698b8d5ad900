"""Whether the lines of a page seem to run from top to bottom: the page lies on its side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovis_engine import TiledImage

#: A page whose columns are this many times as rough as its rows seems to lie on its side. Upright, the bundled samples
#: of print have rows 1.2 to 5.3 times as rough as columns.
SIDEWAYS_RATIO = 1.4

#: Shortest side, in pixels, of a picture of which something can be said.
_LEAST_SIDE = 32


def lies_sideways(image: TiledImage) -> bool:
    """Whether the picture's ink varies from column to column much more than from row to row."""
    grey = image.tiles[0].mean(axis=2, dtype=np.float32)
    if min(grey.shape) < _LEAST_SIDE:
        return False
    return _roughness(grey, axis=0) > SIDEWAYS_RATIO * _roughness(grey, axis=1)


def _roughness(grey: npt.NDArray[np.float32], axis: int) -> float:
    """How much the mean changes from one line of pixels to the next, over the lines along ``axis``."""
    profile = grey.mean(axis=axis)
    return float(np.square(np.diff(profile)).mean()) + 1e-6
