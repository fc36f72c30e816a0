"""No build of torch with CUDA is installed unasked: real pip, on indexes of this test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "torch_build.py"
CUDA = ("nvidia-cudnn-cu13", "cuda-bindings")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Of an environment that has pip alone."""
    folder = tmp_path_factory.mktemp("plain") / "venv"
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


@pytest.fixture
def registry(tmp_path):
    """As the world's: torch needs CUDA there, and weighs what it weighs."""
    folder = tmp_path / "registry"
    _publish(folder, "torch", "2.13.0", requires=CUDA, weight=30_000_000)
    for name in CUDA:
        _publish(folder, name, "13.0", weight=60_000_000)
    return folder


@pytest.fixture
def without_cuda(tmp_path):
    """An index of builds without."""
    folder = tmp_path / "cpu"
    _publish(folder, "torch", "2.13.0+cpu")
    return folder


def test_a_build_with_cuda_is_refused_with_its_weight_and_both_ways_out(python, registry):
    judged = _judge(python, registry)
    assert judged.returncode == 1
    assert "torch 2.13.0 would bring 2 packages of CUDA along, 0.2 GB to download" in judged.stderr
    assert "make test TORCH_INDEX=" in judged.stderr
    assert "make test CUDA=1" in judged.stderr


def test_an_index_of_builds_without_cuda_is_preferred(python, registry, without_cuda):
    judged = _judge(python, registry, without_cuda.as_uri())
    assert (judged.returncode, judged.stdout) == (0, ""), judged.stderr


def test_a_registry_without_torch_says_so(python, without_cuda, tmp_path):
    judged = _judge(python, tmp_path / "nothing")
    assert judged.returncode == 1
    assert "pip finds no build of torch" in judged.stderr


def test_an_environment_that_has_torch_is_left_alone(tmp_path):
    judged = _judge(sys.executable, tmp_path / "nothing")
    assert judged.returncode == 0, judged.stderr


def test_make_judges_before_it_installs_and_asks_the_named_index_for_all():
    lines = _made("demo", "TORCH_INDEX=file:///builds").splitlines()
    installs = [number for number, line in enumerate(lines) if "pip install" in line]
    [judges] = [
        number for number, line in enumerate(lines) if "torch_build.py" in line and '"file:///builds" demo' in line
    ]
    assert all("--extra-index-url file:///builds" in lines[number] for number in installs)
    assert installs[0] < judges < installs[1]


def test_make_takes_cuda_when_told_with_the_triton_it_names():
    lines = _made("demo", "CUDA=1").splitlines()
    assert any("--constraint .venv/constraints.txt --editable" in line for line in lines)
    assert any(line.startswith('test -n "1"') for line in lines)


def _judge(python, index, *more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env = kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": Path(index).as_uri()}
    words = [str(python), str(SCRIPT), os.devnull, *more, *([] if more else [""]), "test"]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


def _made(*words):
    done = subprocess.run(["make", "-n", "-B", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def _publish(registry, name, version, requires=(), weight=0):
    """A wheel that holds nothing but its weight, and the page that lists it."""
    folder, stem = registry / name, f"{name.replace('-', '_')}-{version}"
    folder.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
        wheel.writestr("weight", bytes(weight))
    (folder / "index.html").write_text(f'<a href="{stem}-py3-none-any.whl">{stem}-py3-none-any.whl</a>')
