"""The chart's proxy: valid as rendered, with the cluster's pods behind it and the cluster's certificate before it."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
import yaml
from support.certificates import Authority
from support.chart_values import PLAIN, PROXY, SERVER, VALUES
from support.envoy import Envoy, envoy_binary
from support.kubernetes import render
from support.told_pod import ToldPod

from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.client.security import Tls
from hope_serve.errors import Unavailable


def test_the_proxy_of_a_cluster_is_valid_and_looks_for_the_clusters_pods(tmp_path):
    rendered = render(PLAIN, tmp_path)
    config = tmp_path / "envoy.yaml"
    config.write_text(rendered["ConfigMap", "shop-hope-serve-proxy"]["data"]["envoy.yaml"])
    checked = subprocess.run(
        [envoy_binary(), "--mode", "validate", "-c", str(config)], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    pods = yaml.safe_load(config.read_text())["static_resources"]["clusters"][0]
    address = pods["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    headless = rendered["Service", address["address"]]
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["selector"].items() <= rendered[SERVER]["spec"]["template"]["metadata"]["labels"].items()


async def test_the_proxy_of_a_cluster_speaks_tls_with_the_certificate_of_the_secret(tmp_path):
    """The rendered configuration is run, with the Secret's files where the pod would have them."""
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    maps = render(VALUES["tls"], tmp_path)["ConfigMap", "shop-hope-serve-proxy"]["data"]
    places = {
        "/etc/envoy-tls/tls.crt": pair.certificate,
        "/etc/envoy-tls/tls.key": pair.private_key,
        "/etc/envoy-tls": tmp_path,
    }
    places["/etc/envoy/tls.yaml"] = tmp_path / "tls.yaml"
    config, secret = (_moved(maps[name], places) for name in ("envoy.yaml", "tls.yaml"))
    (tmp_path / "tls.yaml").write_text(secret)
    async with ToldPod() as pod:
        envoy = Envoy(tmp_path / "envoy", yaml.safe_load(config))
        try:
            await asyncio.to_thread(envoy.start, [pod.target])
            await envoy.until_healthy(1)
            trusting = ChannelOptions(tls=Tls(roots=authority.roots), retries=False)
            async with AsyncHopeClient(envoy.target, trusting) as client:
                assert (await client.adapt("ann", [6, 7])).version == 1
            async with AsyncHopeClient(envoy.target, ChannelOptions(retries=False)) as client:
                with pytest.raises(Unavailable):
                    await client.adapt("ann", [6, 7])
        finally:
            envoy.close()


def test_clients_reach_the_proxy_and_without_one_the_pods(tmp_path):
    for values, deployment in ((PLAIN, PROXY), (VALUES["bare"], SERVER)):
        rendered = render(values, tmp_path)
        wanted = rendered["Service", "shop-hope-serve"]["spec"]["selector"]
        assert wanted.items() <= rendered[deployment]["spec"]["template"]["metadata"]["labels"].items()
    assert PROXY not in rendered


def _moved(text, places):
    for there, here in places.items():
        text = text.replace(there, str(here))
    return text
