"""Ovis vision-language models: pictures and a prompt in, tokens out.

Names are imported on first use, so that ``ovis_engine.tiling`` loads without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovis_engine.bundled import bundled_model_path as bundled_model_path
    from ovis_engine.constraint import JsonSchema as JsonSchema
    from ovis_engine.constraint import Regex as Regex
    from ovis_engine.engine import Engine as Engine
    from ovis_engine.errors import CallbackError as CallbackError
    from ovis_engine.errors import CheckpointError as CheckpointError
    from ovis_engine.errors import CheckpointNotFoundError as CheckpointNotFoundError
    from ovis_engine.errors import ConstraintFailedError as ConstraintFailedError
    from ovis_engine.errors import EngineClosedError as EngineClosedError
    from ovis_engine.errors import EngineDeadError as EngineDeadError
    from ovis_engine.errors import EngineError as EngineError
    from ovis_engine.errors import FieldOutOfRangeError as FieldOutOfRangeError
    from ovis_engine.errors import InvalidConstraintError as InvalidConstraintError
    from ovis_engine.errors import LengthError as LengthError
    from ovis_engine.errors import RequestError as RequestError
    from ovis_engine.locate import locate_checkpoint as locate_checkpoint
    from ovis_engine.partition import Partition as Partition
    from ovis_engine.partition import Room as Room
    from ovis_engine.partition import largest_partition as largest_partition
    from ovis_engine.prompt import Turn as Turn
    from ovis_engine.repetition import RepetitionRule as RepetitionRule
    from ovis_engine.request import Completion as Completion
    from ovis_engine.request import EngineConfig as EngineConfig
    from ovis_engine.request import EngineStats as EngineStats
    from ovis_engine.request import Request as Request
    from ovis_engine.row import TokenLogprob as TokenLogprob
    from ovis_engine.runner import OvisRunner as OvisRunner
    from ovis_engine.runner import RunnerOptions as RunnerOptions
    from ovis_engine.runner import RunnerResult as RunnerResult
    from ovis_engine.sampling import Sampling as Sampling
    from ovis_engine.streaming import CompletionStream as CompletionStream
    from ovis_engine.text import Delta as Delta
    from ovis_engine.tiling import TiledImage as TiledImage
    from ovis_engine.tiling import tile_image as tile_image

#: Public name -> module that defines it.
_HOMES = {
    "CallbackError": "errors",
    "CheckpointError": "errors",
    "CheckpointNotFoundError": "errors",
    "Completion": "request",
    "CompletionStream": "streaming",
    "ConstraintFailedError": "errors",
    "Delta": "text",
    "Engine": "engine",
    "EngineClosedError": "errors",
    "EngineConfig": "request",
    "EngineDeadError": "errors",
    "EngineError": "errors",
    "EngineStats": "request",
    "FieldOutOfRangeError": "errors",
    "InvalidConstraintError": "errors",
    "JsonSchema": "constraint",
    "LengthError": "errors",
    "OvisRunner": "runner",
    "Partition": "partition",
    "Regex": "constraint",
    "RepetitionRule": "repetition",
    "Request": "request",
    "RequestError": "errors",
    "Room": "partition",
    "RunnerOptions": "runner",
    "RunnerResult": "runner",
    "Sampling": "sampling",
    "TiledImage": "tiling",
    "TokenLogprob": "row",
    "Turn": "prompt",
    "bundled_model_path": "bundled",
    "largest_partition": "partition",
    "locate_checkpoint": "locate",
    "tile_image": "tiling",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
