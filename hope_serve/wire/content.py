"""Prompts and inputs: text, token ids, or turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from google.protobuf.message import Message as Pb

from hope_serve.api import Message
from hope_serve.errors import InvalidRequest
from hope_serve.pb.hope.v1 import content_pb2
from hope_serve.wire.enums import ROLE, Role

Content = str | Sequence[int] | Sequence[Message]
ROLE_OF_NAME = {role.value: role for role in Role}


def write_content(content: Content) -> dict[str, Any]:
    """The one field that holds ``content``, for a message's constructor."""
    if isinstance(content, str):
        return {"text": content}
    if is_messages(content):
        return {"messages": content_pb2.Messages(messages=[_write_message(m, i) for i, m in enumerate(content)])}
    return {"token_ids": content_pb2.TokenIds(ids=content)}  # type: ignore[arg-type]  # is_messages was False


def read_content(message: Pb, oneof: str) -> Content:
    """What the oneof holds.

    Raises:
        InvalidRequest: it holds nothing, or something empty.
    """
    name = message.WhichOneof(oneof)
    if name is None:
        kinds = ", ".join(field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields)
        raise InvalidRequest(oneof, f"nothing is set; set one of {kinds}")
    value = getattr(message, name)
    content: Content = value
    if name == "token_ids":
        content = tuple(value.ids)
    elif name == "messages":
        content = tuple(_read_message(m, i) for i, m in enumerate(value.messages))
    if not content:
        raise InvalidRequest(name, "it is empty; give at least one character, token or turn")
    return content


def is_messages(content: Content) -> TypeGuard[Sequence[Message]]:
    """Whether the content is a conversation."""
    return not isinstance(content, str) and len(content) > 0 and isinstance(content[0], Message)


def _write_message(message: Message, index: int) -> content_pb2.Message:
    role = ROLE_OF_NAME.get(message.role)
    if role is None:
        known = ", ".join(ROLE_OF_NAME)
        raise InvalidRequest(f"messages[{index}].role", f"{message.role!r} is unknown; choose one of {known}")
    return content_pb2.Message(role=ROLE.write(role), text=message.text)


def _read_message(message: content_pb2.Message, index: int) -> Message:
    role = ROLE.read(message.role, f"messages[{index}].role")
    if role is None:
        raise InvalidRequest(f"messages[{index}].role", "it is not set; say who speaks")
    if not message.text:
        raise InvalidRequest(f"messages[{index}].text", "it is empty; leave the turn out or say something")
    return Message(role=role.value, text=message.text)
