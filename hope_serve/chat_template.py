"""A model's own chat template (Jinja), rendered where it can touch nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_CHARACTERS = 100_000


class ChatTemplateError(ValueError):
    """The template cannot be read, or refuses these messages; the message says why."""


class ChatTemplate:
    """Renders messages as the model saw them in its training.

    Args:
        source: the template as published with the model.
        bos_token, eos_token: texts that templates may name.

    Raises:
        ChatTemplateError: the source is empty, too long or no Jinja template.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "") -> None:
        if not source:
            raise ChatTemplateError("the model brings no chat template; it can continue text, and not chat")
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ChatTemplateError(
                f"the chat template has {len(source):,} characters; at most {MAX_TEMPLATE_CHARACTERS:,} are read"
            )
        self._names = {"bos_token": bos_token, "eos_token": eos_token}
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ChatTemplateError(f"the chat template is no Jinja template ({error}); repair it") from error

    def render(self, messages: Sequence[tuple[str, str]], *, reply: bool = True) -> str:
        """The text of (role, text) messages, then (``reply``) the opening of the assistant's next one.

        Raises:
            ChatTemplateError: the template refuses the messages, for example a role that it does not know.
        """
        turns = [{"role": role, "content": text} for role, text in messages]
        try:
            return self._template.render(messages=turns, add_generation_prompt=reply, **self._names)
        except (TemplateError, SecurityError, TypeError, ValueError, ArithmeticError) as error:
            raise ChatTemplateError(f"the chat template refuses these messages: {error}") from error


def _refuse(message: Any) -> None:
    raise TemplateError(str(message))
