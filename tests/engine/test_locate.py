"""Where checkpoints are found, without any network."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovis_engine.bundled import bundled_model_path
from ovis_engine.engine import Engine
from ovis_engine.errors import CheckpointNotFoundError
from ovis_engine.locate import locate_checkpoint
from tests.engine.conftest import SMALL

HUB_ID = "AIDC-AI/Ovis2-1B"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, tiny: Path) -> Path:
    """The hub's cache with one snapshot, laid out as huggingface_hub does."""
    repository = tmp_path / "hub" / "models--AIDC-AI--Ovis2-1B"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / COMMIT).symlink_to(tiny)
    return tmp_path / "hub"


def test_a_directory_is_itself(tiny: Path) -> None:
    assert locate_checkpoint(tiny) == tiny
    assert locate_checkpoint(str(tiny)) == tiny


def test_a_bundled_model_goes_by_its_name() -> None:
    assert locate_checkpoint("ovis2-reader") == bundled_model_path()


def test_a_hub_id_means_the_snapshot_in_the_local_cache(hub_cache: Path) -> None:
    found = locate_checkpoint(HUB_ID, hub_cache=hub_cache)
    assert found == hub_cache / "models--AIDC-AI--Ovis2-1B" / "snapshots" / COMMIT
    with Engine.from_pretrained(found, SMALL) as engine:
        assert engine.side == 448


@pytest.mark.parametrize("source", ["AIDC-AI/Ovis2-2B", "nothing", "/no/such/place", "a/b/c", "-bad-/..name"])
def test_what_is_nowhere_is_named(hub_cache: Path, source: str) -> None:
    with pytest.raises(CheckpointNotFoundError) as caught:
        locate_checkpoint(source, hub_cache=hub_cache)
    assert (caught.value.file, caught.value.code) == (source, "checkpoint_not_found")
