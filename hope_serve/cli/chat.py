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
from hope_serve.cli.connected import Server, calls_server, connected
from hope_serve.cli.options import Timeout
from hope_serve.config import ConfigError
from hope_serve.errors import HopeError

COMMANDS = """/memory  shows what is kept of you
/help    shows this
/quit    ends, and so does Ctrl-D
//text   says /text"""

if TYPE_CHECKING:
    from hope_serve.client import HopeClient


@calls_server
def chat(
    server: Server,
    user: Annotated[str, typer.Option(help="Who speaks. Default: your login name.")] = "",
    session: Annotated[str, typer.Option(help="Goes on with an earlier conversation. Default: a new one.")] = "",
    learn: Annotated[bool, typer.Option(help="Whether your turns are learned.")] = True,
    temperature: Annotated[float, typer.Option(help="0 always says the likeliest.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    timeout: Timeout = 120.0,
) -> None:
    """Talk to the model. It learns your turns; /help names the commands, /quit or Ctrl-D ends."""
    user, session = user or _login_name(), session or uuid4().hex[:8]
    check_name("--user", user, MAX_USER_ID)
    check_name("--session", session, MAX_SESSION_ID)
    sampling = SamplingParams(temperature=temperature, max_tokens=max_tokens)
    with connected(server, timeout) as client:
        talk = Talk(client, user, session, sampling, learn=learn)
        talk.run()


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        raise ConfigError("this account has no login name; say who speaks with --user") from error


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
        self._say(f"{model.name}; you are {self._user}, session {self._session}; /help, /memory, /quit")
        while (line := self._next_line()) is not None and line.strip() != "/quit":
            text = line.strip()
            if text.startswith("/") and not text.startswith("//"):
                self._guarded(partial(self._obey, text))
            elif text:
                self._guarded(partial(self._answer, line.replace("//", "/", 1) if text.startswith("//") else line))

    def _obey(self, command: str) -> None:
        """A line that begins with a slash is never said nor learned, whether or not it is a command."""
        match command:
            case "/memory":
                self._show_memory()
            case "/help":
                self._say(COMMANDS)
            case _:
                self._say(f"{command} is no command, and was neither said nor learned\n{COMMANDS}")

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
