"""Batches: files of chat completions, checked, fed to the queue line by line, and written back."""

from __future__ import annotations

import redis
from prometheus_client import CollectorRegistry

from contract.blobs import BlobStore
from contract.metrics import BatchMetrics
from contract.planning import Planner
from contract.prompt_book import load_prompt_books
from workers.batches.checking import FileChecker
from workers.batches.feeding import Feeder
from workers.batches.keeper import BatchKeeper
from workers.batches.writing import OutputWriter
from workers.settings import WorkerSettings


def batch_keeper(
    settings: WorkerSettings, registry: CollectorRegistry, client: redis.Redis, blobs: BlobStore
) -> BatchKeeper:
    """A keeper, wired; ``client`` is thread-safe and not one that others wait for."""
    # A chat completion brings its prompt along: an operator's own prompts change nothing here.
    planner = Planner(settings.egress, load_prompt_books(None))
    max_line_bytes = settings.batch_max_line_bytes
    return BatchKeeper(
        client=client,
        blobs=blobs,
        checker=FileChecker(blobs, settings.batch_max_lines, max_line_bytes),
        feeder=Feeder(client, blobs, planner, settings.batch_window, max_line_bytes),
        writer=OutputWriter(client, blobs, max_line_bytes),
        metrics=BatchMetrics(registry),
        concurrency=settings.batch_jobs,
    )
