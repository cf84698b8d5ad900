"""One worker in this process: a real Valkey, S3, media processes and the bundled model; and a caller of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import redis
from PIL import Image
from prometheus_client import CollectorRegistry

from contract import store, submissions
from contract.blobs import BlobStore, input_key
from contract.catalogue import CATALOGUE
from contract.metrics import WorkerMetrics
from contract.options import TaskOptions
from contract.redis_io import run
from contract.task import ObjectInput, PartResult, TaskSpec, new_task_id
from ovis_engine import Engine, bundled_model_path
from workers.answering import Answerer
from workers.generation import Generator
from workers.inputs import InputReader
from workers.leases import LeaseKeeper
from workers.media.pool import MediaPool
from workers.result_cache import ResultCache
from workers.runner import PartRunner
from workers.settling import Settler

CARD = CATALOGUE["ovis2-reader"]
SAMPLES = bundled_model_path() / "samples"
RECEIPT = SAMPLES / "receipt.png"
TRUTH = json.loads((SAMPLES / "samples.json").read_text())["receipt.png"]["truth"]
READ = "Read all the text in the image."


class Bench:
    """One worker's runner, and a caller who reads what came of it."""

    def __init__(self, client: redis.Redis, blobs: BlobStore, engine: Engine, media: MediaPool) -> None:
        self.client, self.blobs = client, blobs
        leases = LeaseKeeper(client, CARD.name, "w1", 1)
        self.runner = PartRunner(
            client=client,
            blobs=blobs,
            inputs=InputReader(client, blobs, media, engine.side, CARD),
            answerer=Answerer(client, Generator(engine), CARD),
            cache=ResultCache(client, blobs, "r1"),
            leases=leases,
            settler=Settler(client, store.finish),
            metrics=WorkerMetrics(CollectorRegistry()),
            card=CARD,
            worker="w1",
            inline_result_bytes=16384,
        )

    def put(self, *pictures: Image.Image | Path) -> tuple[ObjectInput, ...]:
        """Store pictures as the gateway would."""
        task_id, inputs = new_task_id(), []
        for index, picture in enumerate(pictures):
            key = input_key("acme", task_id, index)
            data = io.BytesIO()
            (Image.open(picture) if isinstance(picture, Path) else picture).save(data, "PNG")
            self.blobs.put(key, data.getvalue(), "image/png")
            inputs.append(ObjectInput(bucket=self.blobs.bucket, key=key))
        return tuple(inputs)

    def submit(
        self, inputs: tuple[ObjectInput, ...], operation: Any = "ocr", *, tenant: str = "acme", **options: Any
    ) -> str:
        """Accept a task; reply its id."""
        task_id = new_task_id()
        spec = TaskSpec(
            kind="image" if inputs else "text",
            model=CARD.name,
            operation=operation,
            prompt=READ,
            inputs=inputs,
            options=TaskOptions(**options),
        )
        submission = submissions.Submission(task_id, tenant, spec, 1, 1.0, 1000, 1000)
        assert run(self.client, submissions.submit(submission)) == ("created", task_id)
        return task_id

    def answer(self, *pictures: Image.Image | Path, operation: Any = "ocr", **options: Any) -> PartResult:
        """Run a task over pictures; reply its result."""
        task_id = self.submit(self.put(*pictures), operation, **options)
        assert self.runner.run_next() == "succeeded"
        result = PartResult.model_validate_json(str(self.client.hget(store.task_key(task_id), "p0:result")))
        stored = json.loads(self.blobs.get(result.blob_key))
        assert {name: stored[name] for name in ("text", "data", "source")} == {
            "text": result.text,
            "data": result.data,
            "source": result.source,
        }
        return result
