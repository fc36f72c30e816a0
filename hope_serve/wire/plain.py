"""Fields that are called the same on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message as Pb

FieldDescriptor: TypeAlias = Any
"""The stubs name two classes of them, one for each implementation of protobuf."""

P = TypeVar("P", bound=Pb)


def read_plain(message: Pb) -> dict[str, Any]:
    """Scalars, lists and maps of scalars that are set, by name; enums, messages and oneofs are the caller's."""
    return {f.name: _read(message, f) for f in _plain(message) if not f.has_presence or message.HasField(f.name)}


def write_plain(message: P, value: object) -> P:
    """Set the same fields of ``message`` from the attributes of ``value``; None leaves one unset."""
    for field in _plain(message):
        content = getattr(value, field.name)
        if content is None:
            continue
        if _is_map(field):
            getattr(message, field.name).update(content)
        elif field.is_repeated:
            getattr(message, field.name).extend(content)
        else:
            setattr(message, field.name, content)
    return message


def _read(message: Pb, field: FieldDescriptor) -> Any:
    content = getattr(message, field.name)
    if _is_map(field):
        return tuple(sorted(content.items()))
    return tuple(content) if field.is_repeated else content


def _plain(message: Pb) -> Iterator[FieldDescriptor]:
    for field in message.DESCRIPTOR.fields:
        nested = field.message_type is not None and not _is_map(field)
        in_choice = field.containing_oneof is not None and not field.containing_oneof.name.startswith("_")
        if not nested and field.enum_type is None and not in_choice:
            yield field


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
