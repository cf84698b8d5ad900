"""Keeps torch's compiler and its distributed tensors out of a process that uses neither.

torch and the library's batching load both when they are imported: 1 200 modules and 90 MiB for some marks on functions,
which nothing but the compiler reads. Here they are put off until something asks for more than such a mark, and the
library is told that torch comes without its distributed package, as it does on other systems.
``tests/engine/test_without_compiler.py`` fails when a new release of torch or of the library asks for more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def leave_out_compiler() -> bool:
    """Call it on the main thread, before torch is imported.

    ``torch.compile`` still works afterwards: all that was put off is loaded then, without the marks made until then.

    Returns:
        Whether it came in time; if not, nothing changes.
    """
    if "torch" in sys.modules:
        return False
    sys.meta_path.insert(0, _Finder())
    return _hide_distributed()


def _hide_distributed() -> bool:
    """Has the library find out now, and remember, that torch has no distributed package."""
    import torch
    from transformers.utils.import_utils import is_torch_distributed_available

    found = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        return not is_torch_distributed_available()
    finally:
        torch.distributed.is_available = found


def _unmarked(function: Any = None, *_: object, **__: object) -> Any:
    """The function as it is, or where a mark was given settings first, what returns it so."""
    return _unmarked if function is None else function


#: What is asked of the compiler without using it: marks on functions, and one on tensors, whose reply nobody reads.
_MARKS: dict[str, Callable[..., Any]] = dict.fromkeys(
    ("allow_in_graph", "assume_constant_result", "disable", "mark_static_address"), _unmarked
)

#: The modules put off, in the order in which they are loaded when needed, each with what it can do until then. The
#: first two tell the compiler, and nothing else, what shapes come out of operations.
PUT_OFF: dict[str, dict[str, Callable[..., Any]]] = {
    "torch._meta_registrations": {},
    "torch.distributed._meta_registrations": {},
    "torch.export": {},
    "torch._dynamo": _MARKS,
}

#: Their submodules that torch and the library use, and that do without them.
_INDEPENDENT = frozenset(
    ("torch._dynamo._trace_wrapped_higher_order_op", "torch.export._tree_utils", "torch.export.graph_signature")
)


class _PutOff(ModuleType):
    """A module without its content; asked for it or for a submodule, it becomes the real one, and so do the others."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            _load_all()
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _PuttingOff(Loader):
    """Makes a module that is put off, and later the real one."""

    def __init__(self, real: Loader) -> None:
        self._real = real
        self._begun = False

    def exec_module(self, module: ModuleType) -> None:
        """Gives the new module what it can do until it is loaded."""
        vars(module).update(PUT_OFF[module.__name__])
        module.__class__ = _PutOff

    def load(self, module: ModuleType) -> None:
        """Makes the module the real one, once; it may ask for itself meanwhile."""
        if self._begun:
            return
        self._begun = True
        for name in PUT_OFF[module.__name__]:
            delattr(module, name)
        self._real.exec_module(module)
        module.__class__ = ModuleType


#: Other threads wait until everything is loaded.
_loading = threading.RLock()


def _load_all() -> None:
    with _loading:
        for name in PUT_OFF:
            module = sys.modules.get(name)
            spec = getattr(module, "__spec__", None)
            if module is not None and spec is not None and isinstance(spec.loader, _PuttingOff):
                spec.loader.load(module)


class _Loaded(Loader):
    """Gives a module that was loaded while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002 - the protocol has it
        """The module."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Leaves it as it was."""
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """Finds the modules that are put off; a submodule that needs one of them has all loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As the usual finder, with a loader that puts the module off."""
        if isinstance(sys.modules.get(name.rpartition(".")[0]), _PutOff) and name not in _INDEPENDENT:
            _load_all()
            # Loading the others may have loaded it; found again, it would be a second copy.
            loaded = sys.modules.pop(name, None)
            return None if loaded is None else ModuleSpec(name, _Loaded(loaded))
        if name not in PUT_OFF:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _PuttingOff(spec.loader)
        return spec
