"""``hope-serve chat``: a conversation in the terminal that learns."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.console import Console

from hope_serve.api import MAX_SESSION_ID, MAX_USER_ID, Delta, Learn, MemoryChoice, SamplingParams, check_name
from hope_serve.cli.options import Target, Timeout
from hope_serve.errors import HopeError

if TYPE_CHECKING:
    from hope_serve.client import HopeClient


def chat(
    user: Annotated[str, typer.Option(help="Who speaks. Default: your login name.")] = "",
    session: Annotated[str, typer.Option(help="Goes on with an earlier conversation. Default: a new one.")] = "",
    learn: Annotated[bool, typer.Option(help="Whether your turns are learned.")] = True,
    temperature: Annotated[float, typer.Option(help="0 always says the likeliest.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    target: Target = "",
    timeout: Timeout = 120.0,
) -> None:
    """Talk to the model. It learns your turns; /memory shows what it keeps, /quit or Ctrl-D ends."""
    from hope_serve.client import HopeClient
    from hope_serve.client.channel import ChannelOptions

    user, session = user or getpass.getuser(), session or uuid4().hex[:8]
    check_name("--user", user, MAX_USER_ID)
    check_name("--session", session, MAX_SESSION_ID)
    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens)
    with HopeClient(target, ChannelOptions(timeout_seconds=timeout)) as client:
        talk = Talk(client, user, session, sampling, learn=learn)
        talk.run()


class Talk:
    """One conversation: its session keeps the context, the user's memory keeps what was learned."""

    def __init__(self, client: HopeClient, user: str, session: str, sampling: SamplingParams, *, learn: bool) -> None:
        self._client = client
        self._user = user
        self._session = session
        self._sampling = sampling
        self._learn = Learn.USER_TURNS if learn else None
        self._console = Console()

    def run(self) -> None:
        """Take turns until the end of input."""
        model = self._client.get_model()
        self._say(f"{model.name}; you are {self._user}, session {self._session}; /memory, /quit")
        while (line := self._next_line()) not in (None, "/quit"):
            if line == "/memory":
                self._guarded(self._show_memory)
            elif line and line.strip():
                self._guarded(partial(self._answer, line))

    def _next_line(self) -> str | None:
        try:
            return self._console.input("[bold]> [/bold]")
        except (EOFError, KeyboardInterrupt):
            return None

    def _guarded(self, act: Callable[[], None]) -> None:
        """A refusal, or Ctrl-C during an answer, ends the turn and not the conversation."""
        try:
            act()
        except HopeError as error:
            self._say(f"{error} ({error.reason})")
        except KeyboardInterrupt:
            self._say("interrupted")

    def _answer(self, line: str) -> None:
        from hope_serve.api import Message

        events = self._client.stream(
            [Message(role="user", text=line)],
            user_id=self._user,
            session_id=self._session,
            sampling=self._sampling,
            learn=self._learn,
            memory=MemoryChoice(move_session=True),  # what the last turn taught is read in this one
        )
        for event in events:
            if isinstance(event, Delta):
                self._console.out(event.text, end="", highlight=False)
        self._console.out("")

    def _show_memory(self) -> None:
        report = self._client.get_memory(self._user)
        self._say(f"version {report.version}, {report.tokens_learned:,} tokens learned, {report.num_bytes:,} bytes")

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)
