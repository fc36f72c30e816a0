"""The TypeScript client: generated, compiled strictly, packed, installed into a project, used with a real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import grpc
import pytest

from hope_serve.client.affinity import AFFINITY_KEY, affinity_of
from hope_serve.pb.hope.v1 import adaptation_pb2

ROOT = Path(__file__).parents[2]
MODULES = Path(sys.prefix) / "typescript" / "node_modules"
PROGRAMS = ("use_client.ts", "refused.ts")
STRICT = ("--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--module", "nodenext")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project that has the packed client installed, with its programs compiled."""
    folder = tmp_path_factory.mktemp("typescript")
    built = _run(sys.executable, ROOT / "deploy" / "client" / "build_typescript.py", folder / "dist")
    assert built.returncode == 0, built.stdout + built.stderr
    installed = folder / "node_modules" / "hope-serve-client"
    installed.mkdir(parents=True)
    [package] = (folder / "dist").glob("*.tgz")
    with tarfile.open(package) as opened:
        opened.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian's Python 3.11.2 knows none
        opened.extractall(installed, members=_inside(opened))
    for module in MODULES.iterdir():
        (folder / "node_modules" / module.name).symlink_to(module)
    (folder / "package.json").write_text('{"type": "module"}')
    for name in PROGRAMS:
        (folder / name).write_text((ROOT / "tests" / "node" / name).read_text())
    [sample] = re.findall(r"```ts\n(.*?)```", (installed / "README.md").read_text(), re.DOTALL)
    (folder / "sample.ts").write_text(sample)
    compiled = _run(MODULES / ".bin" / "tsc", *STRICT, *PROGRAMS, "sample.ts", cwd=folder)
    assert compiled.returncode == 0, compiled.stdout
    return folder


async def test_it_generates_streams_teaches_and_is_refused_as_the_contract_says(project, server):
    used = await asyncio.to_thread(_node, project, "use_client.js", f"127.0.0.1:{server.port}")
    assert used.returncode == 0, used.stderr


async def test_its_readmes_program_runs(project, server):
    used = await asyncio.to_thread(_node, project, "sample.js", f"127.0.0.1:{server.port}")
    assert used.returncode == 0, used.stderr
    assert used.stdout.endswith("NOT_FOUND NOT_FOUND\n")


async def test_it_repeats_and_names_calls_as_the_python_clients_do(project):
    calls = []
    refusing = grpc.aio.server()
    refusing.add_generic_rpc_handlers((Refusing(calls),))
    port = refusing.add_insecure_port("127.0.0.1:0")
    await refusing.start()
    used = await asyncio.to_thread(_node, project, "refused.js", f"127.0.0.1:{port}")
    await refusing.stop(0)
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout) == dict.fromkeys(
        ("Adapt", "Generate", "GenerateStream", "GetModel"), "UNAVAILABLE UNREACHABLE"
    )
    assert Counter(method for method, _, _ in calls) == {"Adapt": 5, "Generate": 1, "GenerateStream": 1, "GetModel": 5}
    [(_, homes)] = affinity_of(adaptation_pb2.AdaptRequest(user_id="Zoë"))
    for method, metadata, _ in calls:
        assert metadata["authorization"] == "Bearer key"
        assert metadata.get(AFFINITY_KEY) == (None if method == "GetModel" else homes)
    lessons = [adaptation_pb2.AdaptRequest.FromString(raw).request_id for method, _, raw in calls if method == "Adapt"]
    assert len(set(lessons)) == 1
    assert re.fullmatch(r"[0-9a-f]{32}", lessons[0])


def test_the_package_brings_its_types_and_none_of_its_sources(project):
    installed = project / "node_modules" / "hope-serve-client"
    assert {path.name for path in installed.iterdir()} == {"dist", "LICENSE", "README.md", "package.json"}
    assert (installed / "dist" / "index.d.ts").exists()
    assert json.loads((installed / "package.json").read_text())["version"] == "0.1.0"


class Refusing(grpc.GenericRpcHandler):
    """Notes every call, and refuses it as a proxy without pods does."""

    def __init__(self, calls):
        self._calls = calls

    def service(self, handler_call_details):
        method = handler_call_details.method.rpartition("/")[2]
        metadata = dict(handler_call_details.invocation_metadata)

        async def refuse(raw, context):
            self._calls.append((method, metadata, raw))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no pods")

        return grpc.unary_unary_rpc_method_handler(refuse)


def _node(project, program, target):
    return _run("node", program, cwd=project, env={"PATH": os.environ["PATH"], "HOPE_TARGET": target})


def _inside(opened):
    for member in opened.getmembers():
        member.path = member.path.removeprefix("package/")
        yield member


def _run(*words, **how):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **how)
