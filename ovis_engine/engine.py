"""The engine's public face: requests in, completions out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from ovis_engine.allocation import keep_freed_memory
from ovis_engine.attention import set_attention
from ovis_engine.batching import DecodeLoop
from ovis_engine.chat import CHAT_FORMATS
from ovis_engine.checkpoint import OvisModel, load_model
from ovis_engine.config import read_config
from ovis_engine.constraint import ConstraintCompiler
from ovis_engine.dispatch import Dispatcher
from ovis_engine.embedding import check_rows
from ovis_engine.front import VisionFront
from ovis_engine.job import Job, check_fits
from ovis_engine.locate import locate_checkpoint
from ovis_engine.packed_model import pack_layers
from ovis_engine.packing import pack_language_model, pack_linears, packing_pays
from ovis_engine.partition import Room, largest_partition
from ovis_engine.prompt import Prompter
from ovis_engine.request import Completion, EngineConfig, EngineStats, Request
from ovis_engine.streaming import CompletionStream
from ovis_engine.text import Delta, Detokenizer
from ovis_engine.tiling import num_visual_tokens
from ovis_engine.turns import FreeTurns, Turns
from ovis_engine.usage import LoopLimits, RowEnd

#: Tokens of a long prompt per step on a CPU: beside 16 rows its worst step stays below 3 times the median.
CPU_CHUNK_TOKENS = 16


class Engine:
    """Serves one model on one device. Every method may be called from any thread.

    Futures are resolved on the engine's threads: callbacks added to them must be quick and must not call `close`. A
    future cannot be canceled by its holder (``future.cancel()`` is False); use `cancel`.
    """

    def __init__(
        self,
        model: OvisModel,
        prompter: Prompter,
        config: EngineConfig,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Takes over a loaded model and starts the threads; raises as `from_pretrained`, which see."""
        rows = model.language_model.get_input_embeddings().num_embeddings
        check_rows(prompter.tokenizer.get_vocab().values(), rows, file="tokenizer.json")
        check_rows(model.config.eos_token_ids, rows, file="generation_config.json")
        self.config = config
        self._model = model
        self._prompter = prompter
        on_cpu = model.language_model.device.type == "cpu"
        turns = Turns() if on_cpu else FreeTurns()
        batch_tiles = config.vision_batch_tiles or (1 if on_cpu else 8)
        if on_cpu:
            keep_freed_memory()
        if packing_pays(model.language_model.device, model.language_model.dtype):
            pack_layers(model.language_model)
            pack_language_model(model.language_model)
            pack_linears(model.encoder)
        self._loop = DecodeLoop(
            model.language_model,
            _limits(config),
            on_row_end=self._row_ended,
            on_exit=self._loop_exited,
            before_step=self._before_step,
            turns=turns,
        )
        self._front = VisionFront(
            model,
            pool_rows=config.visual_pool_rows,
            batch_tiles=batch_tiles,
            flush_prefix_cache=self._loop.flush_prefix_cache,
            turns=turns,
        )
        self._constraints = ConstraintCompiler(
            prompter.tokenizer.to_str(),
            vocab_size=model.language_model.config.vocab_size,
            eos_token_ids=model.config.eos_token_ids,
        )
        self._dispatcher = Dispatcher(
            self._front,
            self._loop,
            detokenizer=Detokenizer(prompter.tokenizer),
            eos_token_ids=model.config.eos_token_ids,
            max_running=config.max_running_requests,
            batch_tiles=batch_tiles,
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
        """Loads a checkpoint, original or converted, and starts serving it.

        Args:
            path: Checkpoint directory, name of a bundled model, or hub id of one in the local hub cache.
            config: Sizes; the defaults suit a small model on a CPU.
            on_death: Called once, on an engine thread, if a thread of the engine dies; not on `close`.

        Raises:
            CheckpointError: If the checkpoint cannot be loaded, or has token ids that its embedding lacks.
            MemoryError: If the KV cache or the visual pool does not fit.
        """
        config = config or EngineConfig()
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        device, dtype = torch.device(config.device), getattr(torch, config.dtype)
        directory = locate_checkpoint(path)
        prompter = Prompter.from_checkpoint(directory, CHAT_FORMATS[read_config(directory).language_model])
        model = load_model(directory, device=device, dtype=dtype)
        set_attention(model.language_model)
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
        return min(self._model.config.max_context_tokens, self._loop.max_row_tokens)

    @property
    def prompter(self) -> Prompter:
        """Encodes conversations as this engine does."""
        return self._prompter

    def count_prompt_tokens(self, request: Request) -> int:
        """Positions that a request's prompt takes, visual tokens included.

        Raises:
            RequestError: If the request is malformed.
        """
        return self._prompter.encode(request.conversation()).num_tokens(self.tokens_per_tile)

    def largest_partition(self, request: Request, max_partition: int) -> int | None:
        """The largest max_partition with which a request's pictures, tiled anew, fit this engine with its text.

        Args:
            request: With its pictures tiled in any way; only their sizes count.
            max_partition: Largest value to try, at least 1.

        Returns:
            A value from 1 to max_partition, or None if the request does not fit at all.

        Raises:
            RequestError: If the request is malformed, or max_partition is below 1.
        """
        layout = self._prompter.encode(request.conversation())
        taken = sum(num_visual_tokens(image.rows, image.cols, self.tokens_per_tile) for image in layout.images)
        text_tokens = layout.num_tokens(self.tokens_per_tile) - taken
        room = Room(
            num_tokens=self.max_context_tokens - text_tokens - request.max_new_tokens,
            num_tiles=self._front.slots.num_slots,
        )
        return largest_partition(
            [(image.width, image.height) for image in layout.images],
            side=self.side,
            tokens_per_tile=self.tokens_per_tile,
            room=room,
            max_partition=max_partition,
        )

    def check(self, request: Request) -> None:
        """Finds out whether a request would be taken in, without queueing it.

        Raises:
            RequestError: If the request is malformed or can never fit.
        """
        self._admitted(request)

    def submit(self, request: Request, on_delta: Callable[[Delta], None] | None = None) -> Future[Completion]:
        """Queues a request.

        Args:
            request: What to generate.
            on_delta: Told each piece of the text as soon as it is sure to stay, on an engine thread: it must be quick.
                All pieces come before the future resolves. If it raises, the request fails with `CallbackError`.

        Returns:
            A future that resolves to the completion, also when canceled; it fails with `EngineDeadError` or
            `EngineClosedError` if the engine ends first, with `ConstraintFailedError` if the request's constraint
            outgrows the grammar library.

        Raises:
            RequestError: If the request is malformed, a duplicate, or can never fit; nothing was queued.
            EngineDeadError: If the engine died.
            EngineClosedError: If the engine was closed.
        """
        job = self._admitted(request, on_delta)
        self._dispatcher.submit(job)
        return job.future

    def stream(self, request: Request) -> CompletionStream:
        """Queues a request and hands out its text as it comes.

        Returns:
            An iterator of deltas, which also has the future and `cancel`.

        Raises:
            RequestError: As `submit`; so for the other errors.
        """
        return CompletionStream(self.submit, self.cancel, request)

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
            tokens_per_second=usage.tokens_per_second,
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

    def _admitted(self, request: Request, on_delta: Callable[[Delta], None] | None = None) -> Job:
        """Makes a job of a request; raises RequestError if it is malformed or can never fit."""
        request.validate()
        layout = self._prompter.encode(request.conversation())
        grammar = None if request.constraint is None else self._constraints.compile(request.constraint)
        job = Job(request, layout, self.tokens_per_tile, grammar=grammar, on_delta=on_delta)
        check_fits(
            job,
            side=self.side,
            context_tokens=self._model.config.max_context_tokens,
            cache_tokens=self._loop.max_row_tokens,
            pool_tiles=self._front.slots.num_slots,
        )
        return job

    def _row_ended(self, row: RowEnd) -> None:
        self._dispatcher.row_ended(row)

    def _before_step(self) -> None:
        self._dispatcher.expire()

    def _loop_exited(self, fault: BaseException | None) -> None:
        self._dispatcher.loop_exited(fault)


def _limits(config: EngineConfig) -> LoopLimits:
    return LoopLimits(
        num_blocks=-(-config.kv_cache_tokens // config.page_size),
        page_size=config.page_size,
        max_batch_tokens=config.max_batch_tokens,
        max_rows=config.max_running_requests,
        kept_keys_bytes=config.kept_keys_bytes,
        long_prompt_tokens=config.long_prompt_tokens,
        chunk_tokens=config.chunk_tokens or (CPU_CHUNK_TOKENS if config.device == "cpu" else config.max_batch_tokens),
    )
