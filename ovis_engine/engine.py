"""The engine's public face: requests in, completions out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from ovis_engine.attention import choose_attention
from ovis_engine.batching import DecodeLoop, LoopLimits, RowEnd
from ovis_engine.checkpoint import OvisModel, load_model
from ovis_engine.dispatch import Dispatcher
from ovis_engine.front import VisionFront
from ovis_engine.job import Job, check_fits
from ovis_engine.prompt import QwenPrompter
from ovis_engine.request import Completion, EngineConfig, EngineStats, Request


class Engine:
    """Serves one model on one device. Every method may be called from any thread.

    Futures are resolved on the engine's threads: callbacks added to them must be quick and must not call `close`. A
    future cannot be canceled by its holder (``future.cancel()`` is False); use `cancel`.
    """

    def __init__(
        self,
        model: OvisModel,
        prompter: QwenPrompter,
        config: EngineConfig,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Takes over a loaded model and starts the threads; see `from_pretrained`."""
        self.config = config
        self._model = model
        self._prompter = prompter
        self._loop = DecodeLoop(
            model.language_model,
            _limits(config),
            on_row_end=self._row_ended,
            on_exit=self._loop_exited,
        )
        self._front = VisionFront(
            model,
            pool_rows=config.visual_pool_rows,
            batch_tiles=config.vision_batch_tiles,
            flush_prefix_cache=self._loop.flush_prefix_cache,
        )
        self._dispatcher = Dispatcher(
            self._front,
            self._loop,
            decode=prompter.decode,
            eos_token_ids=model.config.eos_token_ids,
            max_running=config.max_running_requests,
            batch_tiles=config.vision_batch_tiles,
            on_death=on_death,
        )
        self._dispatcher.start()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        config: EngineConfig | None = None,
        *,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> Engine:
        """Loads an original-format checkpoint and starts serving it.

        Args:
            path: Checkpoint directory.
            config: Sizes; the defaults suit a small model on a CPU.
            on_death: Called once, on an engine thread, if a thread of the engine dies; not on `close`.

        Raises:
            CheckpointError: If the checkpoint cannot be loaded.
            MemoryError: If the KV cache does not fit.
        """
        config = config or EngineConfig()
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        device, dtype = torch.device(config.device), getattr(torch, config.dtype)
        prompter = QwenPrompter.from_checkpoint(Path(path))
        model = load_model(Path(path), device=device, dtype=dtype)
        # Set on the configuration directly: the setter tries to import a kernel by that name.
        model.language_model.config._attn_implementation = choose_attention(device, dtype)
        return cls(model, prompter, config, on_death)

    @property
    def side(self) -> int:
        """Side of a tile in pixels, for `ovis_engine.tiling`."""
        return self._model.config.vision.image_size

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of one tile."""
        return self._model.config.vision.tokens_per_tile

    @property
    def max_context_tokens(self) -> int:
        """Most positions of one request, prompt and output: the model's context or the KV cache, if smaller."""
        return min(self._model.config.max_context_tokens, self._cache_tokens)

    @property
    def _cache_tokens(self) -> int:
        return self._loop.num_blocks * self.config.page_size

    def count_prompt_tokens(self, request: Request) -> int:
        """Positions that a request's prompt takes, visual tokens included.

        Raises:
            RequestError: If the request is malformed.
        """
        return self._prompter.encode(request.conversation()).num_tokens(self.tokens_per_tile)

    def submit(self, request: Request) -> Future[Completion]:
        """Queues a request.

        Returns:
            A future that resolves to the completion, also when canceled; it fails with `EngineDeadError` or
            `EngineClosedError` if the engine ends first.

        Raises:
            RequestError: If the request is malformed, a duplicate, or can never fit; nothing was queued.
            EngineDeadError: If the engine died.
            EngineClosedError: If the engine was closed.
        """
        job = Job(request, self._prompter.encode(request.conversation()), self.tokens_per_tile)
        check_fits(
            job,
            side=self.side,
            context_tokens=self._model.config.max_context_tokens,
            cache_tokens=self._cache_tokens,
            pool_tiles=self._front.slots.num_slots,
        )
        self._dispatcher.submit(job)
        return job.future

    def cancel(self, request_id: str) -> bool:
        """Stops a request; its future resolves as canceled once its row is free, within a step or two.

        Returns:
            Whether the request was still in the engine. It may yet finish if its last step was already running.
        """
        return self._dispatcher.cancel(request_id)

    def stats(self) -> EngineStats:
        """Reads the counters."""
        usage = self._loop.usage()
        waiting, running = self._dispatcher.counts()
        return EngineStats(
            waiting=waiting,
            running=running,
            steps=usage.steps,
            last_step_rows=usage.last_step_rows,
            preemptions=usage.preemptions,
            output_tokens=usage.output_tokens,
            encoded_tiles=self._front.encoded_tiles,
            cache_tokens_used=usage.cache_tokens_used,
            cache_tokens_total=usage.cache_tokens_total,
            pool_rows_used=self._front.slots.num_pinned * self.tokens_per_tile,
            pool_rows_total=self._front.slots.num_slots * self.tokens_per_tile,
        )

    def close(self) -> None:
        """Stops at once; unfinished requests fail with `EngineClosedError`. Waits for the threads; idempotent."""
        self._dispatcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _row_ended(self, row: RowEnd) -> None:
        self._dispatcher.row_ended(row)

    def _loop_exited(self, fault: BaseException | None) -> None:
        self._dispatcher.loop_exited(fault)


def _limits(config: EngineConfig) -> LoopLimits:
    return LoopLimits(
        num_blocks=-(-config.kv_cache_tokens // config.page_size),
        page_size=config.page_size,
        max_batch_tokens=config.max_batch_tokens,
        max_rows=config.max_running_requests,
    )
