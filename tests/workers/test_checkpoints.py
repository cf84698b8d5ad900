"""Checkpoints from S3, the hub cache, a directory or the package, on a real S3 server and in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from contract.catalogue import CATALOGUE
from contract.errors import BlobsUnavailable, InputUnavailable
from contract.settings import FleetSettings
from ovis_engine import CheckpointError, CheckpointNotFoundError, Engine, EngineConfig, Request, bundled_model_path
from ovis_fleet.stack import LocalStack
from tests.workers.checkpoint_store import FETCHER, PIECE, SHARDS, TINY, Recording, same, sharded, upload
from workers.checkpoints import fetch_checkpoint, find_checkpoint
from workers.settings import WorkerSettings


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharded(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def blobs(fleet_settings: FleetSettings) -> Recording:
    return Recording(fleet_settings)


def fetcher(servers: LocalStack, location: str, cache: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCHER, location, str(cache), mode]
    environment = os.environ | servers.env
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_prefix_becomes_a_directory_once(blobs: Recording, local: Path, tmp_path: Path) -> None:
    location = upload(blobs, local)
    first = fetch_checkpoint(location, blobs, tmp_path / "cache")
    assert same(first, local)
    asked = list(blobs.asked)
    assert sorted(name for name, _ in asked) == sorted(file.name for file in local.iterdir())
    assert fetch_checkpoint(f"{location}/", blobs, tmp_path / "cache") == first
    assert blobs.asked == asked


def test_a_changed_object_makes_another_directory(blobs: Recording, local: Path, tmp_path: Path) -> None:
    location = upload(blobs, local)
    before = fetch_checkpoint(location, blobs, tmp_path)
    key = f"{location.removeprefix('s3://ovis/')}/generation_config.json"
    blobs.put(key, b'{"eos_token_id": 7}', "application/json")
    after = fetch_checkpoint(location, blobs, tmp_path)
    assert after != before
    assert (after / "generation_config.json").read_bytes() == b'{"eos_token_id": 7}'


def test_code_and_nested_objects_are_not_taken(blobs: Recording, local: Path, tmp_path: Path) -> None:
    location = upload(blobs, local)
    prefix = location.removeprefix("s3://ovis/")
    for name in ("modeling_ovis.py", "sub/config.json", "weights.bin"):
        blobs.put(f"{prefix}/{name}", b"x", "text/plain")
    assert same(fetch_checkpoint(location, blobs, tmp_path), local)


def test_two_processes_at_once_download_once(
    servers: LocalStack, blobs: Recording, local: Path, tmp_path: Path
) -> None:
    location = upload(blobs, local)
    processes = [fetcher(servers, location, tmp_path, "go") for _ in range(2)]
    told = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    idle, busy = sorted(told, key=len)
    assert len(idle) == 1
    asked = {line.split()[1] for line in busy if line.startswith("asked")}
    assert {Path(key).name for key in asked} == {file.name for file in local.iterdir()}
    (directory,) = {line.removeprefix("got ") for line in (idle[-1], busy[-1])}
    assert same(Path(directory), local)


def test_a_download_whose_process_was_killed_goes_on_where_it_broke_off(
    servers: LocalStack, blobs: Recording, local: Path, tmp_path: Path
) -> None:
    location = upload(blobs, local)
    process = fetcher(servers, location, tmp_path, "stall")
    # A block of file buffer has reached the disk, the rest of the shard never comes.
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in tmp_path.glob("*.partial/model-1.safetensors.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".lock", ".partial")] == []
    (left,) = tmp_path.glob("*.partial/model-1.safetensors.part")
    kept = left.stat().st_size
    assert same(fetch_checkpoint(location, blobs, tmp_path), local)
    assert ("model-1.safetensors", kept) in blobs.asked
    assert "config.json" not in dict(blobs.asked)


def test_a_broken_line_is_tried_again_from_where_it_broke(
    fleet_settings: FleetSettings, blobs: Recording, local: Path, tmp_path: Path
) -> None:
    location = upload(blobs, local)
    broken = Recording(fleet_settings, break_after=3 * PIECE)
    assert same(fetch_checkpoint(location, broken, tmp_path), local)
    starts = sorted(start for name, start in broken.asked if name == "model-1.safetensors")
    assert starts[:3] == [0, 3 * PIECE, 6 * PIECE]


def test_a_store_that_is_away_leaves_what_has_come(
    fleet_settings: FleetSettings, blobs: Recording, local: Path, tmp_path: Path
) -> None:
    location = upload(blobs, local)
    broken = Recording(fleet_settings, break_after=1)
    with pytest.raises(BlobsUnavailable):
        fetch_checkpoint(location, broken, tmp_path)
    assert list(tmp_path.glob("tiny-*.partial/*.part"))
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".lock", ".partial")]
    assert same(fetch_checkpoint(location, blobs, tmp_path), local)
    assert any(start > 0 for _, start in blobs.asked)


@pytest.mark.parametrize("size_bytes", [0, 4000, 1_000_000])
def test_a_truncated_object_is_named_and_not_published(
    blobs: Recording, local: Path, tmp_path: Path, size_bytes: int
) -> None:
    location = upload(blobs, local)
    key = f"{location.removeprefix('s3://ovis/')}/{SHARDS[0]}"
    blobs.put(key, (local / SHARDS[0]).read_bytes()[:size_bytes], "application/octet-stream")
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(location, blobs, tmp_path)
    assert caught.value.file == SHARDS[0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_shard_that_the_index_lists_and_nobody_uploaded_is_named_before_any_weights_come(
    blobs: Recording, local: Path, tmp_path: Path
) -> None:
    location = upload(blobs, local)
    blobs.delete_prefix(f"{location.removeprefix('s3://ovis/')}/{SHARDS[1]}")
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(location, blobs, tmp_path)
    assert caught.value.file == SHARDS[1]
    assert not any(name.endswith(".safetensors") for name, _ in blobs.asked)


def test_a_tensor_that_only_the_index_knows_is_named(blobs: Recording, local: Path, tmp_path: Path) -> None:
    location = upload(blobs, local)
    index = json.loads((local / "model.safetensors.index.json").read_text(encoding="utf-8"))
    index["weight_map"]["vte.other"] = SHARDS[0]
    key = f"{location.removeprefix('s3://ovis/')}/model.safetensors.index.json"
    blobs.put(key, json.dumps(index).encode(), "application/json")
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(location, blobs, tmp_path)
    assert (caught.value.file, caught.value.tensor) == (SHARDS[0], "vte.other")


@pytest.mark.parametrize("location", ["s3://ovis/models/nothing", "s3://ovis", "s3:///models/x"])
def test_what_holds_no_checkpoint_is_said_so(blobs: Recording, tmp_path: Path, location: str) -> None:
    with pytest.raises(CheckpointNotFoundError) as caught:
        fetch_checkpoint(location, blobs, tmp_path)
    assert caught.value.file == location


def test_a_bucket_that_is_not_there_is_no_outage(blobs: Recording, tmp_path: Path) -> None:
    with pytest.raises(InputUnavailable):
        fetch_checkpoint("s3://no-such-bucket/models/tiny", blobs, tmp_path)


def test_threads_of_one_process_may_fetch_at_once(blobs: Recording, local: Path, tmp_path: Path) -> None:
    location = upload(blobs, local)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch_checkpoint(location, blobs, tmp_path), range(4)))
    assert len(set(found)) == 1
    assert len(blobs.asked) == len(list(local.iterdir()))


def test_a_worker_finds_what_it_was_told_to_serve(
    fleet_settings: FleetSettings, blobs: Recording, local: Path, tmp_path: Path
) -> None:
    settings = WorkerSettings(**fleet_settings.model_dump(), checkpoint_cache_dir=tmp_path)
    card = CATALOGUE["ovis2-reader"]
    assert find_checkpoint(None, card, settings) == bundled_model_path()
    assert find_checkpoint(str(TINY), card, settings) == TINY
    fetched = find_checkpoint(upload(blobs, local), card, settings)
    with Engine.from_pretrained(fetched, EngineConfig(dtype="float32", kv_cache_tokens=1024)) as engine:
        assert engine.submit(Request("Hi.", max_new_tokens=3, ignore_eos=True)).result(60).num_output_tokens == 3


def test_a_model_that_is_nowhere_is_named(fleet_settings: FleetSettings, tmp_path: Path) -> None:
    settings = WorkerSettings(**fleet_settings.model_dump(), checkpoint_cache_dir=tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="Ovis2-34B"):
        find_checkpoint(None, CATALOGUE["ovis2-34b"], settings)


def role(servers: LocalStack, location: str, cache: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workers", "model", "--model", "ovis2-reader", "--checkpoint", location]
    environment = os.environ | servers.env | {"OVIS_CHECKPOINT_CACHE_DIR": str(cache)}
    command += ["--metrics-host", "127.0.0.1", "--metrics-port", str(port)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_the_model_role_serves_from_s3(
    servers: LocalStack, blobs: Recording, local: Path, tmp_path: Path, unused_port: int
) -> None:
    process = role(servers, upload(blobs, local), tmp_path, unused_port)
    try:
        deadline = time.monotonic() + 90
        while not is_ready(unused_port):
            assert process.poll() is None, process.communicate()[0].decode()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("tiny-") and path.suffix == ""]


def test_a_model_role_without_its_checkpoint_does_not_start(
    servers: LocalStack, tmp_path: Path, unused_port: int
) -> None:
    process = role(servers, "s3://ovis/models/nothing", tmp_path, unused_port)
    output = process.communicate(timeout=90)[0].decode()
    assert process.returncode == 1
    assert "s3://ovis/models/nothing: holds no checkpoint" in output


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False
