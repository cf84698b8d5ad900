"""Out of memory: recognised, and met with fewer rows."""

from __future__ import annotations

import pytest
import redis
import torch

from contract.redis_io import connect
from contract.store import rows_key
from ovis_engine import EngineDeadError
from workers.memory import is_out_of_memory, note_out_of_memory, remembered_rows


def test_the_cpu_allocators_own_error_is_recognised() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 50)
    assert is_out_of_memory(failed.value)


def test_what_an_error_was_caused_by_is_recognised() -> None:
    error = EngineDeadError("the loop ended")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [None, ValueError("no"), RuntimeError("shape mismatch")])
def test_other_errors_are_not_taken_for_it(error: BaseException | None) -> None:
    assert not is_out_of_memory(error)


def test_every_death_halves_the_rows_of_the_host_down_to_one(client: redis.Redis) -> None:
    rows = [remembered_rows(client, "ovis2-4b", "a", 16)]
    for _ in range(5):
        note_out_of_memory(client, "ovis2-4b", "a", rows[-1])
        rows.append(remembered_rows(client, "ovis2-4b", "a", 16))
    assert rows == [16, 8, 4, 2, 1, 1]
    assert remembered_rows(client, "ovis2-4b", "b", 16) == 16
    assert remembered_rows(client, "ovis2-4b", "a", 1) == 1
    assert client.ttl(rows_key("ovis2-4b", "a")) > 0


def test_a_note_that_cannot_be_made_does_not_disturb_the_end(unused_port: int) -> None:
    away = connect(f"redis://127.0.0.1:{unused_port}/0")
    note_out_of_memory(away, "ovis2-4b", "a", 16)
    away.close()
