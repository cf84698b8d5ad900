"""The blob store, on a real S3 server."""

from __future__ import annotations

import httpx
import pytest

from contract.blobs import BlobStore, input_key, result_key
from contract.errors import BlobsUnavailable, InputUnavailable
from contract.settings import FleetSettings


@pytest.fixture
def blobs(fleet_settings: FleetSettings) -> BlobStore:
    return BlobStore(fleet_settings)


def test_bytes_come_back_as_they_were(blobs: BlobStore) -> None:
    key = input_key("acme", "task_1", 0)
    blobs.put(key, b"\x00\xff", "image/png")
    assert blobs.get(key) == b"\x00\xff"
    assert blobs.location(key) == "s3://ovis/inputs/acme/task_1/0"


def test_a_presigned_url_reads_one_object_without_credentials(blobs: BlobStore) -> None:
    blobs.put("inputs/acme/task_2/0", b"one", "image/png")
    url = blobs.presigned_get(blobs.bucket, "inputs/acme/task_2/0")
    assert httpx.get(url).content == b"one"
    assert httpx.get(url.replace("task_2/0", "task_2/1")).status_code == 403
    assert httpx.get(url.split("?")[0]).status_code == 403


def test_a_prefix_is_deleted_whole_and_nothing_else(blobs: BlobStore) -> None:
    for index in range(3):
        blobs.put(input_key("acme", "task_3", index), b"x", "image/png")
    blobs.put(result_key("acme", "task_3", 0, 1), b"x", "application/json")
    assert blobs.delete_prefix("inputs/acme/task_3/") == 3
    assert blobs.get(result_key("acme", "task_3", 0, 1)) == b"x"


def test_a_missing_object_is_not_an_outage(blobs: BlobStore) -> None:
    with pytest.raises(InputUnavailable):
        blobs.get("inputs/acme/none/0")


def test_wrong_credentials_are_refused(fleet_settings: FleetSettings) -> None:
    wrong = fleet_settings.model_copy(update={"s3_secret_access_key": type(fleet_settings.redis_url)("wrong")})
    with pytest.raises(BlobsUnavailable):
        BlobStore(wrong).put("inputs/acme/task_4/0", b"x", "image/png")


def test_a_store_that_is_away_is_said_to_be_unavailable(fleet_settings: FleetSettings, unused_port: int) -> None:
    away = fleet_settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{unused_port}"})
    with pytest.raises(BlobsUnavailable):
        BlobStore(away).put("inputs/acme/task_5/0", b"x", "image/png")


@pytest.mark.parametrize("change", ["secret", "bucket"])
def test_our_own_bucket_closed_or_gone_is_an_outage(fleet_settings: FleetSettings, change: str) -> None:
    BlobStore(fleet_settings).put("inputs/acme/task_6/0", b"x", "image/png")
    secret = type(fleet_settings.redis_url)("wrong")
    changes = {"secret": {"s3_secret_access_key": secret}, "bucket": {"s3_bucket": "nowhere"}}
    blobs = BlobStore(fleet_settings.model_copy(update=changes[change]))
    with pytest.raises(BlobsUnavailable):
        blobs.get("inputs/acme/task_6/0")
    with pytest.raises(BlobsUnavailable):
        next(blobs.chunks("inputs/acme/task_6/0"))
