"""Ovis vision-language models: pictures and a prompt in, tokens out.

Names are imported on first use, so that ``ovis_engine.tiling`` loads without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovis_engine.bundled import bundled_model_path as bundled_model_path
    from ovis_engine.engine import Engine as Engine
    from ovis_engine.errors import CheckpointError as CheckpointError
    from ovis_engine.errors import EngineClosedError as EngineClosedError
    from ovis_engine.errors import EngineDeadError as EngineDeadError
    from ovis_engine.errors import EngineError as EngineError
    from ovis_engine.errors import RequestError as RequestError
    from ovis_engine.prompt import Turn as Turn
    from ovis_engine.request import Completion as Completion
    from ovis_engine.request import EngineConfig as EngineConfig
    from ovis_engine.request import EngineStats as EngineStats
    from ovis_engine.request import Request as Request
    from ovis_engine.tiling import TiledImage as TiledImage
    from ovis_engine.tiling import tile_image as tile_image

#: Public name -> module that defines it.
_HOMES = {
    "CheckpointError": "errors",
    "Completion": "request",
    "Engine": "engine",
    "EngineClosedError": "errors",
    "EngineConfig": "request",
    "EngineDeadError": "errors",
    "EngineError": "errors",
    "EngineStats": "request",
    "Request": "request",
    "RequestError": "errors",
    "TiledImage": "tiling",
    "Turn": "prompt",
    "bundled_model_path": "bundled",
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
