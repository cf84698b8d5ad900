"""What the gateway needs to know of its surroundings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from contract.settings import FleetSettings


class GatewaySettings(FleetSettings):
    """``FleetSettings`` plus the limits of the HTTP face. Read from the environment, prefix ``OVIS_``."""

    tenants_file: Path = Field(description="JSON file with tenants, the hashes of their keys, and their limits")
    prompts_dir: Path | None = Field(
        None, description="directory with the operator's own prompts, <family>.toml; a family without one keeps ours"
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, le=1024**3, description="longest request body, JSON or multipart"
    )
    max_upload_bytes: int = Field(
        64 * 1024**2,
        ge=1,
        le=5 * 1024**3,
        description="longest upload; workers read no more than their OVIS_MEDIA_MAX_INPUT_BYTES of it",
    )
    file_max_bytes: int = Field(200 * 1024**2, ge=1, le=5 * 1024**3, description="longest file of a batch")
    file_retention_s: int = Field(
        30 * 86_400, ge=60, le=366 * 86_400, description="how long files, and batches after their end, are kept"
    )
    batch_max_unended: int = Field(50, ge=1, le=100_000, description="batches of one tenant that haven't ended")
    max_wait_s: float = Field(60.0, ge=0, le=600, description="longest that one request waits for a task's end")
    chat_s: float = Field(600.0, ge=0.1, le=86_400, description="longest that a chat completion may take")
    events_ping_s: float = Field(
        15.0, gt=0, le=600, description="how often an event stream without news is kept alive by a comment"
    )
    estimate_wait_s: float = Field(10.0, gt=0, le=60, description="how long an io worker may take for an estimate")
    queue_max_waiting_parts: int = Field(100_000, ge=1, description="parts that may wait in one model's queue")
    queue_max_bytes: int = Field(
        64 * 1024**3, ge=1, description="bytes of stored inputs of one model's tasks that haven't ended"
    )
    blob_threads: int = Field(32, ge=1, le=256, description="calls of the object store at once")
    blob_timeout_s: float = Field(8.0, gt=0, le=120, description="how long the object store may take to keep an input")
    trace_share: float = Field(
        1.0, ge=0, le=1, description="share of traces begun here that are recorded, where there is a collector"
    )
    shutdown_grace_s: int = Field(25, ge=1, le=600, description="how long requests may go on after SIGTERM")
