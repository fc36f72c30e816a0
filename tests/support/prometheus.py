"""A real Prometheus on the deployed rules, which looks every second."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml
from support.promql import RULES
from support.redis_server import free_port

START_SECONDS = 20


class Prometheus:
    """One process. ``set_pods`` tells it whom to scrape."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process = None

    def start(self):
        self.set_pods([])
        deployed = yaml.safe_load((RULES.parent / "prometheus.yaml").read_text())
        scraped = {"job_name": deployed["scrape_configs"][0]["job_name"]}
        scraped["file_sd_configs"] = [{"files": [str(self.folder / "pods.json")], "refresh_interval": "1s"}]
        deployed |= {"rule_files": [str(RULES / "*.yaml")], "scrape_configs": [scraped], "alerting": {}}
        deployed["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        written = self.folder / "prometheus.yaml"
        written.write_text(yaml.safe_dump(deployed))
        options = {
            "config.file": written,
            "storage.tsdb.path": self.folder / "data",
            "web.listen-address": f"127.0.0.1:{self.port}",
            "log.level": "warn",
        }
        with (self.folder / "prometheus.log").open("w") as log:
            command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                self._get("/-/ready")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
            else:
                return self
        raise RuntimeError(f"Prometheus did not start: {(self.folder / 'prometheus.log').read_text()[-2000:]}")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def set_pods(self, addresses):
        """Scrape these (host:port each) from now on."""
        fresh = self.folder / "pods.new"
        fresh.write_text(json.dumps([{"targets": addresses}] if addresses else []))
        fresh.replace(self.folder / "pods.json")

    def query(self, expression):
        """The finite values that the expression has now, by their labels."""
        text = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        result = json.loads(text)["data"]["result"]
        found = {tuple(sorted(series["metric"].items())): float(series["value"][1]) for series in result}
        return {labels: value for labels, value in found.items() if math.isfinite(value)}

    def close(self):
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return reply.read().decode()
