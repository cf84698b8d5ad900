"""Ten thousand short requests leave memory flat."""

from __future__ import annotations

import pytest

from tests.engine.soak import soak

#: Bytes per request that allocators' noise may show.
FLAT_BYTES = 1000
#: Objects per request: a leak of one is 1.
FLAT_OBJECTS = 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_short_requests_leave_memory_flat(capsys: pytest.CaptureFixture[str]) -> None:
    result = soak(10_000)
    with capsys.disabled():
        print(f"\n{result.slope_bytes} bytes, {result.objects_per_request:.3f} objects per request")
        print(f"resident set, MiB: {result.rss_mib[::5]}")
    assert result.slope_bytes < FLAT_BYTES
    assert result.objects_per_request < FLAT_OBJECTS
