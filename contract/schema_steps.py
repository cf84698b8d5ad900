"""How far a JSON Schema leads from schema to schema for one and the same value.

``anyOf``, ``$ref`` and the like hold a value to further schemas in its place; ``properties`` and ``items`` go on to
what is inside it. A chain of the first kind that comes back to its beginning never ends for any value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from referencing import Registry, Resource, Specification
from referencing.exceptions import Unresolvable

from contract.errors import InvalidRequest

if TYPE_CHECKING:
    from referencing._core import Resolver

#: Longest chain of schemas for one value; the libraries recurse along it.
MAX_STEPS = 64

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")


def check_steps(schema: Mapping[str, Any], specification: Specification[Any]) -> None:
    """Find out whether ``schema`` comes to an end for every value.

    Args:
        schema: A schema that follows its metaschema, nested less deep than Python recurses.
        specification: Its draft.

    Raises:
        InvalidRequest: A value would be held to more than ``MAX_STEPS`` schemas, one leading to the next.
    """
    root: Resource[Any] = specification.create_resource(schema)
    _Steps(specification).look(schema, Registry().resolver_with_root(root))


class _Steps:
    def __init__(self, specification: Specification[Any]) -> None:
        self._specification = specification
        # By the schema's identity: all of them live in the one that is checked.
        self._lengths: dict[int, int] = {}

    def look(self, node: Any, resolver: Resolver[Any]) -> None:
        """Check every schema in ``node``; what only looks like one does no harm."""
        if isinstance(node, Mapping):
            resolver = self._within(node, resolver)
            self._length(node, resolver, 1)
        values = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        for value in values:
            self.look(value, resolver)

    def _length(self, node: Mapping[str, Any], resolver: Resolver[Any], steps: int) -> int:
        """Schemas in the longest chain that begins with ``node``, which is the chain's number ``steps``."""
        known = self._lengths.get(id(node), 1)
        if steps + known - 1 > MAX_STEPS:
            raise InvalidRequest(
                f"the schema leads a value through more than {MAX_STEPS} schemas in one place, or without end; "
                f"{', '.join((*_LISTS, '$ref'))} may do so {MAX_STEPS} times at most"
            )
        if id(node) not in self._lengths:
            nexts = (self._length(*following, steps + 1) for following in self._following(node, resolver))
            self._lengths[id(node)] = 1 + max(nexts, default=0)
        return self._lengths[id(node)]

    def _following(
        self, node: Mapping[str, Any], resolver: Resolver[Any]
    ) -> Iterator[tuple[Mapping[str, Any], Resolver[Any]]]:
        """The schemas that a value of ``node`` is held to in the same place."""
        several = [value for key in _LISTS if isinstance(node.get(key), list) for value in node[key]]
        for value in (*several, *(node.get(key) for key in _SINGLE)):
            if isinstance(value, Mapping):
                yield value, self._within(value, resolver)
        reference = node.get("$ref")
        if isinstance(reference, str):
            try:
                found = resolver.lookup(reference)
            except Unresolvable:
                return  # where a value can come to it, the grammar can't be made either
            if isinstance(found.contents, Mapping):
                yield found.contents, self._within(found.contents, found.resolver)

    def _within(self, node: Mapping[str, Any], resolver: Resolver[Any]) -> Resolver[Any]:
        return resolver.in_subresource(self._specification.create_resource(node))
