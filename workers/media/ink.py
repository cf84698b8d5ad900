"""Whether a page has anything to read. Pure numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ovis_engine.tiling import UInt8Array

_Floats = npt.NDArray[np.float32]

#: Side in pixels of the squares whose mean is taken for the paper's colour: paper is shaded, scanners are uneven.
BLOCK = 32

#: Grey levels, after smoothing, by which ink differs from its surroundings at least: half of what faint print does.
MIN_CONTRAST = 5.0

#: Grey levels that always are ink, however noisy the page seems: a page full of texture is no blank page.
MAX_CONTRAST = 20.0

#: Ink stands out by this many standard deviations of the page's smoothed noise.
SIGMAS = 6.0

#: Pixels of ink that make a page worth reading; two specks of dust, smoothed, have fewer. A full stop has more.
MIN_PIXELS = 24

#: Share of the pixels that is enough where the picture is tiny.
MIN_SHARE = 1 / 50

#: Range of the paper's own colour, in grey levels, from which a page without edges is a picture, not paper.
SHADED = 60.0

#: Pixels from which noise is estimated.
_SAMPLE = 1 << 16

#: Standard deviations per median absolute deviation of normal noise.
_MAD_TO_SIGMA = 1.4826


def has_ink(pixels: UInt8Array) -> bool:
    """Whether a page has something on it besides paper.

    Errs towards ink: faint grey print, coloured print, lines, and pictures without any edge count. Blank paper of any
    colour does not, nor does paper with a scanner's slight noise (about 3 grey levels) or uneven light.

    Args:
        pixels: uint8 (height, width, 3), at least one pixel.
    """
    # Yellow on white shows in the darkest channel, red on black in the brightest.
    return any(_stands_out(channel) for channel in (pixels.min(axis=2), pixels.max(axis=2)))


def _stands_out(channel: UInt8Array) -> bool:
    needed = max(1, min(MIN_PIXELS, int(channel.size * MIN_SHARE)))
    if _is_plainly_inked(channel, needed):
        return True
    values = channel.astype(np.float32)
    paper = _paper(values)
    if float(paper.max() - paper.min()) > SHADED:
        return True
    rest = _smoothed(values - paper)
    step = max(1, rest.size // _SAMPLE)
    sample = rest.ravel()[::step]
    noise = _MAD_TO_SIGMA * float(np.median(np.abs(sample - np.median(sample))))
    contrast = min(max(SIGMAS * noise, MIN_CONTRAST), MAX_CONTRAST)
    return int(np.count_nonzero(np.abs(rest) > contrast)) >= needed


def _is_plainly_inked(channel: UInt8Array, needed: int) -> bool:
    """The quick answer for ordinary pages, from every fourth row."""
    rows = channel[::4]
    middle = int(np.median(rows[:, :: max(1, rows.shape[1] // 256)]))
    far = np.count_nonzero(rows < middle - 90) + np.count_nonzero(rows > middle + 90)
    return int(far) >= max(needed, rows.size // 500)


def _paper(values: _Floats) -> _Floats:
    """The mean of each square, spread over its pixels; the last square of a row or column takes the rest."""
    height, width = values.shape
    rows, cols = np.arange(0, height, BLOCK), np.arange(0, width, BLOCK)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), cols, axis=1)
    heights, widths = np.diff(np.append(rows, height)), np.diff(np.append(cols, width))
    means = sums / np.outer(heights, widths)
    return np.repeat(np.repeat(means, heights, axis=0), widths, axis=1).astype(np.float32)


def _smoothed(values: _Floats) -> _Floats:
    """The mean over 3 x 3 pixels; over as many as there are along an edge of a narrow picture."""
    for axis in (0, 1):
        if values.shape[axis] >= 3:
            parts = np.moveaxis(values, axis, 0)
            values = np.moveaxis((parts[:-2] + parts[1:-1] + parts[2:]) / np.float32(3), 0, axis)
    return values
