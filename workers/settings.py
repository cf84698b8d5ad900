"""Settings of the worker roles."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from contract.settings import FleetSettings

MIB = 1 << 20


class WorkerSettings(FleetSettings):
    """``FleetSettings`` plus what the roles and their media processes are bound by."""

    engine_rows: int = Field(16, ge=1, le=1024, description="requests that share an engine step")
    engine_backlog: int = Field(8, ge=1, le=1024, description="parts claimed beyond the rows, being prepared")
    engine_kv_cache_tokens: int | None = Field(
        None,
        ge=256,
        description="tokens that the KV cache holds; none means what the rows usually need of the model, at most 32768",
    )
    engine_max_batch_tokens: int = Field(2048, ge=16, description="most tokens of one engine step")
    engine_dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto is bfloat16 on CUDA and float32 on the CPU"
    )
    engine_threads: int | None = Field(None, ge=1, le=256, description="CPU threads of the engine; none means torch's")
    checkpoint_cache_dir: Path = Field(
        Path("~/.cache/ovis-fleet/checkpoints"), description="where checkpoints from s3:// are kept on this machine"
    )
    drain_grace_s: float = Field(25.0, ge=0, le=3600, description="how long running parts may go on after SIGTERM")
    stall_s: float = Field(
        120.0, ge=1, le=3600, description="how long a worker may hold work without progress before it ends itself"
    )
    sweep_interval_s: float = Field(600.0, gt=0, description="how often io workers look for objects without a record")
    orphan_age_s: float = Field(
        3600.0, ge=0, description="age from which an object without a record is deleted; above the longest upload"
    )
    webhook_concurrency: int = Field(16, ge=1, le=256, description="webhook deliveries that an io worker sends at once")
    webhook_timeout_s: float = Field(
        20.0, gt=0, le=30, description="how long a receiver may take to answer a webhook delivery"
    )
    io_jobs: int = Field(4, ge=1, le=256, description="plans and assemblies that an io worker does at once")
    batch_jobs: int = Field(2, ge=1, le=64, description="batches that an io worker looks at at once")
    batch_window: int = Field(256, ge=1, le=10_000, description="lines of one batch that wait or run at once")
    batch_max_lines: int = Field(50_000, ge=1, le=1_000_000, description="most lines of one batch")
    batch_max_line_bytes: int = Field(32 * MIB, ge=1024, le=256 * MIB, description="longest line of a batch")
    estimate_threads: int = Field(
        4, ge=1, le=64, description="estimates that an io worker works on at once, each in a media process of its own"
    )
    plan_max_parts: int = Field(5000, ge=1, le=100_000, description="most pages or clips of one task")
    media_processes: int = Field(2, ge=1, le=64, description="processes that fetch and decode")
    media_jobs_per_process: int = Field(500, ge=1, description="jobs after which a media process is replaced")
    media_timeout_s: float = Field(60.0, gt=0, le=3600, description="wall time of one job, fetching included")
    media_cpu_s: int = Field(30, ge=1, le=3600, description="CPU time of one job: a picture, a page, a clip, a look")
    media_memory_bytes: int = Field(2048 * MIB, ge=256 * MIB, description="address space of a media process")
    media_max_input_bytes: int = Field(64 * MIB, ge=1024, description="bytes of one input")
    media_max_pixels: int = Field(100_000_000, ge=1, description="pixels of one picture, page or frame")
    media_max_pages: int = Field(5000, ge=1, le=50_000, description="pages of one document")
    media_max_frames: int = Field(256, ge=1, le=4096, description="frames of one clip")
    media_cache_bytes: int = Field(
        64 * MIB,
        ge=0,
        description="bytes of documents and clips that a media process keeps for their next page; 0 is off",
    )
    media_office_command: Path | None = Field(
        None, description="LibreOffice's soffice, which opens Office files; none means the one on the PATH, if any"
    )
    inline_result_bytes: int = Field(16384, ge=0, le=1 * MIB, description="longest text that sits in the record")

    @property
    def slots(self) -> int:
        """Parts that a model worker takes at once."""
        return self.engine_rows + self.engine_backlog
