"""compose.yaml is what compose reads, mounts what is there, and its parts fit: addresses, durability, time to drain."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from support.promql import ROOT
from support.redis_server import RedisServer

from hope_serve.config import load_config, parse_setting
from hope_serve.errors import FailedPrecondition
from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.url import make_store

FILE = ROOT / "deploy" / "compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
PODS = SERVICES["pods"]


def test_it_is_a_compose_file():
    checked = _checked(FILE)
    assert checked.returncode == 0, checked.stdout


def test_a_misspelt_key_is_found(tmp_path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("stop_grace_period", "stop_grace"))
    assert "stop_grace" in _checked(wrong).stdout


def test_everything_that_is_mounted_is_there():
    mounted = [v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", ())]
    files = [source for source in mounted if source.startswith("./")]
    assert len(files) >= 6
    assert [source for source in files if not (FILE.parent / source).exists()] == []


def test_pods_have_time_to_drain():
    command, insecure, *options = PODS["command"]
    assert (command, insecure) == ("serve", "--insecure")
    environ = {name: value for name, value in PODS["environment"].items() if name != "HOME"}
    config = load_config(None, dict(map(parse_setting, options[1::2])), environ)
    assert int(PODS["stop_grace_period"].removesuffix("s")) > config.server.drain_seconds + 5


def test_proxy_and_prometheus_look_for_the_pods_by_a_name_that_they_have():
    names = PODS["networks"]["default"]["aliases"]
    envoy = yaml.safe_load((FILE.parent / "envoy" / "envoy.yaml").read_text())
    assignment = envoy["static_resources"]["clusters"][0]["load_assignment"]
    endpoint = assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["address"]["socket_address"]["address"] in names
    prometheus = yaml.safe_load((FILE.parent / "prometheus" / "prometheus.yaml").read_text())
    pods, proxy = prometheus["scrape_configs"]
    assert pods["dns_sd_configs"][0]["names"] == names
    [[target]] = [config["targets"] for config in proxy["static_configs"]]
    assert target.split(":")[0] in SERVICES
    [[manager]] = [config["targets"] for config in prometheus["alerting"]["alertmanagers"][0]["static_configs"]]
    assert manager.split(":")[0] in SERVICES


async def test_the_store_keeps_what_the_pods_promise(tmp_path):
    """valkey with the settings of the file gives the durability of the file; with weaker ones a pod would not start."""
    words = SERVICES["valkey"]["command"][1:]
    settings = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    query = PODS["environment"]["HOPE_MEMORY"].partition("?")[2]
    server = RedisServer(tmp_path, **settings).start()
    try:
        await install_functions(server.url)
        await _open(f"{server.url}?{query}")
        server.command("CONFIG", "SET", "appendfsync", "no")
        with pytest.raises(FailedPrecondition):
            await _open(f"{server.url}?{query}")
    finally:
        server.kill()


def test_alertmanager_takes_its_configuration_and_knows_the_alerts_it_silences():
    file = FILE.parent / "alertmanager" / "alertmanager.yaml"
    checked = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    rules = yaml.safe_load((FILE.parent / "prometheus" / "rules" / "alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert {"HopeNoPods", "HopePodDown", "HopeStoreDown"} <= alerts


def test_grafana_finds_dashboards_and_prometheus():
    provisioning = FILE.parent / "grafana" / "provisioning"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "hope-serve.yaml").read_text())["providers"]
    places = {volume.split(":")[0]: volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    assert places["./grafana/dashboards"] == provider["options"]["path"]
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES


def _checked(file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def _open(url):
    store = make_store(url)
    try:
        await store.open()
    finally:
        await store.close()
