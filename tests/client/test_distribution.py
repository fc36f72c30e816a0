"""hope-serve-client: built, judged, installed into an empty environment, and used against a real server."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUPPORTED = ("3.11", "3.12", "3.13")
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
USE = """
import sys
from hope_serve.client import HopeClient, Message, SamplingParams
with HopeClient(sys.argv[1]) as client:
    client.adapt("ann", "My dog is called Biscuit. " * 8)
    sampling = SamplingParams(max_tokens=4, ignore_eos=True)
    reply = client.generate([Message(role="user", text="My dog?")], user_id="ann", sampling=sampling)
    assert reply.started.memory_version == 1
    assert client.is_serving()
heavy = {"torch", "numpy", "tokenizers", "triton", "redis"} & {name.partition(".")[0] for name in sys.modules}
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""


def _marks(version):
    """In the tests' own Python always, in the others where there is time."""
    return () if version == OURS else (pytest.mark.world,)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = _run(sys.executable, ROOT / "deploy" / "client" / "build.py", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_holds_the_client_and_nothing_else(built):
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"hope_serve/client/aio.py", "hope_serve/py.typed", "hope_serve/pb/hope/v1/memory_pb2.pyi"} <= names
    rooms = {name.split("/")[1] for name in names if name.startswith("hope_serve/")}
    files = {"__init__.py", "config.py", "engine_config.py", "errors.py", "message.py", "section.py", "py.typed"}
    assert rooms == files | {"api", "client", "identity", "pb", "wire"}
    assert wheel.stat().st_size < 300_000


def test_the_wheel_passes_check_wheel_contents(built):
    [wheel] = built.glob("*.whl")
    checked = _run(sys.executable, "-m", "check_wheel_contents", "--toplevel", "hope_serve", wheel)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_sdist_builds_the_same_wheel(built):
    """``build`` makes the wheel from the sdist: what the sdist lacked, the wheel would lack."""
    [sdist], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    modules = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hope_serve/")}
    assert modules <= packed
    assert {"LICENSE", "README.md", "pyproject.toml"} <= packed


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["whl", pytest.param("tar.gz", marks=pytest.mark.world)])
@pytest.mark.parametrize("version", [pytest.param(each, marks=_marks(each)) for each in SUPPORTED])
async def test_it_installs_into_an_empty_environment_and_talks_to_a_server(built, tmp_path, server, version, kind):
    [wheel] = built.glob(f"*.{kind}")
    interpreter = _interpreter(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on this machine")
    made = await asyncio.to_thread(_run, interpreter, "-m", "venv", tmp_path / "venv")
    assert made.returncode == 0, made.stderr
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ["--constraint", ROOT / "constraints.txt"]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *constraints, wheel]
    installed = await asyncio.to_thread(_run, *pip)
    assert installed.returncode == 0, installed.stderr
    used = await asyncio.to_thread(_run, python, "-I", "-W", "error", "-c", USE, f"127.0.0.1:{server.port}")
    assert used.returncode == 0, used.stderr


def _interpreter(version):
    """That Python, from the search path or from where pyenv and uv keep theirs; None without one."""
    kept = [
        *Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"),
        *Path.home().glob(f".local/share/uv/python/*{version}*/bin/python3"),
    ]
    for found in filter(None, (shutil.which(f"python{version}"), *kept)):
        if _run(found, "--version").stdout.startswith(f"Python {version}."):
            return found
    return None


def _run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
