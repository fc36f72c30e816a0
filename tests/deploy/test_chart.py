"""The chart renders what a cluster takes, refuses values that mean nothing, and keeps the promises of a deployment."""

from __future__ import annotations

from copy import deepcopy

import pytest
import yaml
from support.chart_values import PLAIN, SERVER, VALUES, WRONG
from support.kubernetes import RefusedValues, faults, lint, render
from support.promql import RULES

from hope_serve.config import load_config, parse_setting
from hope_serve.server.server import SERVICES


@pytest.fixture(params=VALUES)
def rendered(request, tmp_path):
    return render(VALUES[request.param], tmp_path)


def test_a_cluster_takes_every_object(rendered, tmp_path):
    assert faults(rendered.values(), tmp_path) == []


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing_to_complain_of(name, tmp_path):
    assert lint(VALUES[name], tmp_path) == ""


@pytest.mark.parametrize("named", WRONG)
def test_values_that_mean_nothing_are_refused_by_name(named, tmp_path):
    with pytest.raises(RefusedValues) as refused:
        render(WRONG[named], tmp_path)
    assert named.replace(".", "/") in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("Deployment", lambda spec: spec["template"]["spec"].update(terminationGraceSeconds=5)),
        ("HorizontalPodAutoscaler", lambda spec: spec.pop("maxReplicas")),
        ("ScaledObject", lambda spec: spec.pop("scaleTargetRef")),
        ("ServiceMonitor", lambda spec: spec.update(endpoints="metrics")),
        ("PrometheusRule", lambda spec: spec["groups"][0].pop("name")),
    ],
)
def test_an_object_that_a_cluster_would_refuse_is_found(kind, spoil, tmp_path):
    everything = {
        key: found for name in ("hpa", "keda", "seen") for key, found in render(VALUES[name], tmp_path).items()
    }
    spoilt = deepcopy(next(found for (of, _), found in everything.items() if of == kind))
    spoil(spoilt["spec"])
    assert len(faults([spoilt], tmp_path)) == 1


def test_every_container_is_held_to_little(rendered):
    for (kind, _), found in rendered.items():
        if kind != "Deployment":
            continue
        pod = found["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("seconds", [1, 60, 600])
def test_a_pod_is_killed_only_after_it_could_drain(seconds, tmp_path):
    pod = _pod(render(PLAIN | {"drainSeconds": seconds, "preStopSeconds": 7}, tmp_path))
    [container] = pod["containers"]
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 7}}
    assert _config(container).server.drain_seconds == seconds
    assert pod["terminationGracePeriodSeconds"] > 7 + seconds + 5


def test_probes_ask_for_services_that_servers_have(rendered):
    [container] = _pod(rendered)["containers"]
    assert container["readinessProbe"]["grpc"]["service"] in SERVICES
    assert "service" not in container["livenessProbe"]["grpc"]
    assert "service" not in container["startupProbe"]["grpc"]
    port = container["livenessProbe"]["grpc"]["port"]
    assert _config(container).server.listen == f"0.0.0.0:{port}"


def test_the_servers_arguments_are_settings_that_it_takes(rendered):
    _config(_pod(rendered)["containers"][0])


def test_encryption_keys_and_addresses_come_from_the_secret_alone(tmp_path):
    [container] = _pod(render(VALUES["gpu"], tmp_path))["containers"]
    secret = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
    assert secret == {
        "HOPE_MEMORY": {"name": "store", "key": "url"},
        "HOPE_MEMORY_KEYS": {"name": "store", "key": "keys"},
    }


def test_both_autoscalers_aim_at_saturation(tmp_path):
    hpa = render(VALUES["hpa"], tmp_path)["HorizontalPodAutoscaler", "shop-hope-serve"]["spec"]
    [metric] = hpa["metrics"]
    assert metric["pods"]["metric"]["name"] == "hope_saturation"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    keda = render(VALUES["keda"], tmp_path)["ScaledObject", "shop-hope-serve"]["spec"]
    [trigger] = keda["triggers"]
    assert trigger["metadata"]["query"] == 'sum(hope_saturation{namespace="prod", service="shop-hope-serve-pods"})'
    assert trigger["metadata"]["threshold"] == "0.6"
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    for name in ("hpa", "keda"):
        assert "replicas" not in render(VALUES[name], tmp_path)[SERVER]["spec"]


def test_the_rules_of_a_cluster_are_the_rules_that_were_tested(tmp_path):
    rule = render(VALUES["seen"], tmp_path)["PrometheusRule", "shop-hope-serve"]
    tested = [group for path in sorted(RULES.glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]]
    assert rule["spec"]["groups"] == tested


def test_every_dashboard_is_brought_along(tmp_path):
    maps = [m for (kind, _), m in render(VALUES["seen"], tmp_path).items() if kind == "ConfigMap"]
    files = {name for found in maps if "grafana_dashboard" in found["metadata"]["labels"] for name in found["data"]}
    assert files >= {"on-call.json", "serving.json", "learning.json", "store.json"}


def test_callers_are_asked_who_they_are_unless_the_values_say_anybody(tmp_path):
    """The image's own files are in place of the Secrets' mounts; the server's own configuration is asked."""
    asked = _pod(render(PLAIN, tmp_path))
    [container] = asked["containers"]
    config = _config(container)
    assert config.server.insecure  # TLS ends at the proxy
    folder = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "identity")
    assert config.identity.key_file == f"{folder}/keys.json"
    assert {"name": "identity", "secret": {"secretName": "callers", "defaultMode": 0o440}} in asked["volumes"]
    [open_to_all] = _pod(render(VALUES["bare"], tmp_path))["containers"]
    assert not _config(open_to_all).identity.required


def test_only_the_proxy_and_prometheus_reach_a_pod(tmp_path):
    policy = render(VALUES["gpu"], tmp_path)["NetworkPolicy", "shop-hope-serve"]["spec"]
    calls, metrics = policy["ingress"]
    [proxy] = calls["from"]
    assert proxy["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "proxy"
    [watcher] = metrics["from"]
    assert watcher["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "watch"}
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 6379, 4317}


def _pod(rendered):
    return rendered[SERVER]["spec"]["template"]["spec"]


def _config(container):
    """The configuration that the container's server would have."""
    command, *options = container["args"]
    assert command == "serve"
    assert options[::2] == ["--set"] * (len(options) // 2)
    environ = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    return load_config(None, dict(map(parse_setting, options[1::2])), environ | {"HOPE_MEMORY": "redis://valkey"})
