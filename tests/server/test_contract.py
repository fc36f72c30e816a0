"""proto/ is linted, its generated code is fresh, and no RPC in it is a promise only."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from hope_serve.client.channel import service_config
from hope_serve.metrics import METHODS
from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2, memory_pb2
from hope_serve.server.adaptation import AdaptationService
from hope_serve.server.inference import InferenceService
from hope_serve.server.memory import MemoryService

ROOT = Path(__file__).parents[2]
FILES = {AdaptationService: adaptation_pb2, InferenceService: inference_pb2, MemoryService: memory_pb2}
RPCS = {
    f"{service.full_name}/{method.name}"
    for module in FILES.values()
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_the_contract_passes_its_linter():
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    done = subprocess.run([buf, "lint", str(ROOT / "proto")], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_generated_code_is_what_the_contract_generates():
    done = subprocess.run(
        [sys.executable, str(ROOT / "proto" / "generate.py"), "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_rpc_is_implemented():
    for service, module in FILES.items():
        (descriptor,) = module.DESCRIPTOR.services_by_name.values()
        assert {method.name for method in descriptor.methods} <= vars(service).keys()


def test_every_rpc_has_a_retry_policy_and_a_metric_label():
    names = [name for policy in service_config()["methodConfig"] for name in policy["name"]]
    assert {f"{name['service']}/{name['method']}" for name in names} == RPCS
    assert {rpc.partition("/")[2] for rpc in RPCS} == set(METHODS)
    assert json.loads(json.dumps(service_config())) == service_config()


def test_every_scalar_whose_default_is_not_zero_is_optional():
    """SamplingParams and AdaptOptions are read by name: an unset field must mean the dataclass's own default."""
    from hope_serve.api import AdaptOptions, SamplingParams

    for message, kind in ((inference_pb2.SamplingParams, SamplingParams), (adaptation_pb2.AdaptOptions, AdaptOptions)):
        defaults = kind()
        for field in message.DESCRIPTOR.fields:
            if not field.is_repeated and field.enum_type is None:
                assert field.has_presence or not getattr(defaults, field.name), field.full_name
