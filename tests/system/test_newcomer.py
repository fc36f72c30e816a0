"""The README as a newcomer reads it: every command of it is run, or it is said here why not; every program too."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from support.certificates import Authority
from support.ports import free_port
from support.redis_server import RedisServer

from hope_serve.cli.app import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = [
    re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
    for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", TEXT, re.MULTILINE)
]
COMMAND = re.compile(r"^((?:make|docker|helm|echo|\.venv/bin/hope-serve) (?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
COMMANDS = [re.sub(r"\s+#.*|\\\n", "", line) for block in BLOCKS for line in COMMAND.findall(block)]
PROGRAMS = [block for block in BLOCKS if "hope_serve.client" in block and "import" in block]
ELSEWHERE = {
    "make test": "it is what runs this",
    "make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu": "test_torch_build.py",
    "make demo CUDA=1": "test_torch_build.py; it downloads gigabytes",
    "docker compose --file deploy/compose.yaml up --build": "no containers here; test_compose.py",
    "helm install shop": "no cluster here; test_chart.py and test_readme.py render it",
    ".venv/bin/hope-serve convert path/to/Llama my-model": "no model of others here; tests/convert",
    ".venv/bin/hope-serve serve --checkpoint my-model --part memory.safetensors": "the same",
    ".venv/bin/hope-serve serve --checkpoint hope-smollm2": "nothing is fetched here; test_fetch.py",
    "make stack": "test_stack.py",
    "make soak": "test_soak.py",
}
"""Commands that are not run here, and where what they do is shown."""

TELLING = 49
"""Characters of a command that tell it from the others."""

pytestmark = [pytest.mark.world, pytest.mark.timeout(1200)]


class Shell:
    """Runs the README's lines in a folder of its own, with ports and a store of this test's own."""

    def __init__(self, folder):
        self._folder = folder
        self.port = free_port()
        (folder / ".venv").symlink_to(sys.prefix)
        shutil.copytree(ROOT / "examples", folder / "examples")  # a run writes beside what it reads
        (folder / "hope_serve").symlink_to(ROOT / "hope_serve")
        self.metrics = f"127.0.0.1:{free_port()}"
        self._env = os.environ | {"XDG_DATA_HOME": str(folder / "data"), "HOPE_METRICS_LISTEN": self.metrics}
        self.replaced = {"127.0.0.1:50051": f"127.0.0.1:{self.port}"}

    def run(self, line, said=""):
        """Run it; what it printed."""
        done = subprocess.run(
            ["bash", "-c", self._mine(line)], cwd=self._folder, env=self._mine_env(), input=said, text=True,
            capture_output=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self, line):
        """It runs inside, and listens."""
        log = self._folder / "server.log"
        with log.open("w") as output:
            words = shlex.split(self._mine(line))
            process = subprocess.Popen(words, cwd=self._folder, env=self._mine_env(), stdout=output, stderr=output)
        try:
            while "listens on" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()

    def _mine_env(self):
        target = f"127.0.0.1:{self.port}"
        return self._env | {"HOPE_LISTEN": target, "HOPE_TARGET": target}

    def _mine(self, line):
        for theirs, mine in self.replaced.items():
            line = line.replace(theirs, mine)
        return line


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def test_every_command_is_run_or_shown_elsewhere():
    ran = Path(__file__).read_text().partition("class Shell")[2]
    unknown = [line for line in COMMANDS if line[:TELLING] not in ran and not _elsewhere(line)]
    assert unknown == []
    assert [line for line in ELSEWHERE if not any(command.startswith(line) for command in COMMANDS)] == []
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("line", [line for line in COMMANDS if "hope-serve " in line])
def test_every_command_and_option_exists(line):
    command, parts = typer.main.get_command(app), shlex.split(line.partition(">")[0])[1:]
    while parts and hasattr(command, "commands"):
        command = command.commands[parts.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {part for part in parts if part.startswith("--")} <= options


@pytest.mark.nightly  # CI plays it by itself; the next one plays the same story in the reader's words
def test_the_demo_recalls(shell):
    said = subprocess.run(shlex.split("make demo"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert said.returncode == 0, said.stderr
    assert '"recall_with_memory"' in said.stdout


def test_the_demo_recalls_what_the_reader_tells(shell):
    line = '.venv/bin/hope-serve demo --tell "My name is Ada. My boat is called Heron." --ask "What is my boat called?"'
    assert shell.run(line).count("Your boat is called Heron.") == 2, "before the restart and after it"


def test_ones_own_server_and_words(shell, tmp_path):
    with shell.serving(".venv/bin/hope-serve serve"):
        shell.run('echo "My name is Ada. My dog is called Biscuit. I live in Bergen." > ada.txt')
        shell.run(".venv/bin/hope-serve adapt ada.txt --user ada")
        assert "Biscuit" in shell.run(".venv/bin/hope-serve chat --user ada", said="What is my dog called?\n")
        assert "1" in shell.run(".venv/bin/hope-serve memory versions ada")
        once = f" --metrics http://{shell.metrics}/metrics --once"
        assert "saturation" in shell.run(".venv/bin/hope-serve top" + once).lower()
        shell.run(".venv/bin/hope-serve memory backup ada-and-all.db")
        assert (tmp_path / "ada-and-all.db").exists()
        shell.run(".venv/bin/hope-serve bench --target 127.0.0.1:50051 --streams 1,4 --adapted 200")
        for program in PROGRAMS:
            _run_program(shell, program, tmp_path)


def test_another_size_of_queue(shell):
    with shell.serving(".venv/bin/hope-serve serve --set engine.max_queue_tokens=65536"):
        pass


def test_a_store_for_many_pods(shell, tmp_path):
    redis = RedisServer(tmp_path / "redis").start()
    try:
        shell.replaced["redis://127.0.0.1:6379"] = redis.url
        shell.run(".venv/bin/hope-serve memory install-functions redis://127.0.0.1:6379")
        with shell.serving(".venv/bin/hope-serve serve --memory redis://127.0.0.1:6379"):
            pass
    finally:
        redis.kill()


def test_a_server_for_others(shell, tmp_path):
    pair = Authority(tmp_path).sign("server")
    assert (pair.certificate, pair.private_key) == (tmp_path / "server.pem", tmp_path / "server.key")
    shell.replaced |= {"0.0.0.0:50051": f"127.0.0.1:{shell.port}", "host:50051": f"127.0.0.1:{shell.port}"}
    shell.run(".venv/bin/hope-serve key new keys.json --tenant acme --scope generate --scope adapt > ada.key")
    [line] = [line for line in COMMANDS if line.startswith(".venv/bin/hope-serve serve --listen 0.0.0.0:50051")]
    with shell.serving(line):
        chat = ".venv/bin/hope-serve chat --target host:50051 --credentials ada.key --tls-roots authority.pem"
        assert shell.run(chat, said="Hello.\n")


def test_a_model_of_ones_own(shell, tmp_path):
    shell.replaced["sqlite:///tmp/tiny.db"] = f"sqlite://{tmp_path}/tiny.db"
    shell.run(".venv/bin/hope-serve train examples/tiny.toml")
    assert "tiny" in shell.run(".venv/bin/hope-serve doctor --checkpoint build/tiny")
    with shell.serving(".venv/bin/hope-serve serve --checkpoint build/tiny --memory sqlite:///tmp/tiny.db"):
        pass


def _run_program(shell, program, folder):
    chats = folder / "chats"
    chats.mkdir(exist_ok=True)
    (chats / "one.txt").write_text("I like tea.")
    file = folder / "program.py"
    file.write_text("from pathlib import Path\n" + shell._mine(program))
    shell.run(f"{sys.executable} -W error program.py")


def _elsewhere(line):
    return any(line.startswith(known) for known in ELSEWHERE)
