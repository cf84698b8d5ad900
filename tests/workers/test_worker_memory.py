"""What a model worker on a CPU loads and holds, as a real process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contract import store, submissions
from contract.blobs import BlobStore, input_key
from contract.catalogue import CATALOGUE
from contract.redis_io import connect, run
from contract.settings import FleetSettings
from contract.task import ObjectInput, TaskSpec, new_task_id
from ovis_engine import EngineConfig
from ovis_fleet.stack import LocalStack, StackConfig
from tests.workers.conftest import QUEUE
from workers.model_role import engine_config
from workers.settings import WorkerSettings

RECEIPT = Path(__file__).parent.parent.parent / "examples" / "receipt.png"

#: What torch and transformers would load for compiling and for several machines.
BANISHED = ("sympy", "torch._inductor", "torch._decomp", "torch.distributed.tensor")

#: A worker held 700 MB before it left these out, and 470 MB then, with this one picture read.
MOST_MB = 560


def imported(log: str) -> set[str]:
    """The modules that a log names, written with PYTHONPROFILEIMPORTTIME: those of import statements."""
    lines = [line for line in log.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_a_worker_on_a_cpu_loads_no_compiler_and_holds_little() -> None:
    config = StackConfig(parts=("valkey", "s3", "model"), extra_env={"PYTHONPROFILEIMPORTTIME": "1"})
    with LocalStack(config) as stack:
        settings = FleetSettings(**{name.removeprefix("OVIS_").lower(): value for name, value in stack.env.items()})
        task_id, client = new_task_id(), connect(stack.redis_url)
        key = input_key("acme", task_id, 0)
        BlobStore(settings).put(key, RECEIPT.read_bytes(), "image/png")
        inputs = (ObjectInput(bucket=stack.bucket, key=key),)
        spec = TaskSpec(kind="image", model=QUEUE, operation="ocr", prompt="Read.", inputs=inputs)
        run(client, submissions.submit(submissions.Submission(task_id, "acme", spec, 1, 1.0, 1000, 1000)))
        deadline = time.monotonic() + 60
        while client.hget(store.task_key(task_id), "status") != "succeeded":
            assert time.monotonic() < deadline, "the picture was never read"
            time.sleep(0.02)
        worker = stack.parts["model"]
        status = Path(f"/proc/{worker.pid}/status").read_text()
        modules = imported(worker.log_path.read_text(errors="replace"))

    assert {"torch", "torch.nn", "boto3", "numpy"} <= modules
    assert sorted(name for name in modules if name.startswith(BANISHED)) == []
    assert int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6 < MOST_MB


def test_a_media_process_loads_neither_pydantic_nor_a_model_library() -> None:
    program = "import json, sys, workers.media.child; print(json.dumps(sorted(sys.modules)))"
    told = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(told.stdout)}
    assert not loaded & {"pydantic", "cryptography", "structlog", "boto3", "redis", "torch", "transformers"}
    assert {"numpy", "PIL", "pypdfium2", "httpcore"} <= loaded


@pytest.mark.parametrize(("model", "kept"), [("ovis2-reader", 0), ("ovis2-1b", EngineConfig.kept_keys_bytes)])
def test_keys_are_kept_side_by_side_where_that_pays(model: str, kept: int) -> None:
    assert engine_config(CATALOGUE[model], "cpu", WorkerSettings()).kept_keys_bytes == kept


@pytest.mark.parametrize(("rows", "backlog"), [(16, 8), (8, 4), (1, 8)])
def test_the_visual_pool_has_room_for_the_backlogs_pictures(rows: int, backlog: int) -> None:
    card, settings = CATALOGUE["ovis2-reader"], WorkerSettings(engine_rows=rows, engine_backlog=backlog)
    config = engine_config(card, "cpu", settings)
    assert config.visual_pool_rows >= settings.slots * card.tokens_per_tile or rows < backlog
    assert config.kv_cache_tokens < config.visual_pool_rows <= 2 * config.kv_cache_tokens
