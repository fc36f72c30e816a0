"""A companion that learns a person: it talks by day with the day's context, and learns by night what it was told.

The next day begins with an empty context. What it knows then, it knows by its weights.
"""

from __future__ import annotations

from uuid import uuid4

from served import options, served

from hope_serve.client import HopeClient, Message, SamplingParams

DAYS = (
    ("My name is Tove Lindholm. I live in Bergen.", "My dog is called Biscuit. I work as a luthier."),
    ("What is my dog called?", "Where do I live?", "My sister's name is Imogen."),
    ("What is my sister's name?", "What do I do for a living?", "What is my name?"),
)
GREEDY = SamplingParams(temperature=0.0, max_tokens=40)


class Companion:
    """One person's companion. ``user``: whose memory it reads and teaches."""

    def __init__(self, client: HopeClient, user: str) -> None:
        self._client, self._user = client, user
        self._today: list[Message] = []

    def hear(self, text: str) -> str:
        """Answer in the context of today."""
        self._today.append(Message(role="user", text=text))
        reply = self._client.generate(self._today, user_id=self._user, sampling=GREEDY).choices[0].text.strip()
        if reply:
            self._today.append(Message(role="assistant", text=reply))
        return reply

    def sleep(self) -> int:
        """Learn what was told today, drop the day's context, and return the memory's version.

        Questions teach nothing; a companion that learns its own guesses ends up believing them.
        """
        told = " ".join(turn.text for turn in self._today if turn.role == "user" and not turn.text.endswith("?"))
        self._today.clear()
        if not told:
            return self._client.get_memory(self._user).version
        return self._client.adapt(self._user, told).version


def play(target: str, days: tuple[tuple[str, ...], ...] = DAYS) -> list[tuple[str, str]]:
    """Live through the days; what was said and what came back."""
    said: list[tuple[str, str]] = []
    with HopeClient(target) as client:
        user = f"companion-{uuid4().hex[:8]}"
        companion = Companion(client, user)
        for number, day in enumerate(days, 1):
            print(f"Day {number}, an empty context")
            for text in day:
                reply = companion.hear(text)
                said.append((text, reply))
                print(f"  you: {text}\n  it:  {reply}")
            print(f"  … sleeps; its memory is version {companion.sleep()}")
        client.delete_memory(user)
    return said


if __name__ == "__main__":
    given = options(str(__doc__)).parse_args()
    with served(given.target, given.checkpoint) as address:
        play(address)
