"""Values that the chart takes, values that it must refuse, and two of the objects that it makes of them."""

from __future__ import annotations

PLAIN = {"store": {"existingSecret": "store"}, "identity": {"existingSecret": "callers"}}
VALUES = {
    "plain": PLAIN,
    "hpa": PLAIN | {"autoscaling": {"kind": "hpa"}},
    "keda": PLAIN | {"autoscaling": {"kind": "keda", "saturation": 0.6, "maxReplicas": 40}},
    "seen": PLAIN | {"monitoring": {"enabled": True, "dashboards": True, "labels": {"release": "prometheus"}}},
    "bare": {
        "store": {"existingSecret": "store"},
        "identity": {"anybody": True},
        "envoy": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "tls": PLAIN | {"envoy": {"enabled": True, "tls": {"existingSecret": "certificate"}}},
    "gpu": {
        "store": {"existingSecret": "store", "encryptionKey": "keys"},
        "identity": {"existingSecret": "callers"},
        "image": {"repository": "registry.example/hope-serve", "tag": "1.2-gpu", "pullSecrets": ["pull"]},
        "resources": {"requests": {"cpu": "4"}, "limits": {"nvidia.com/gpu": 1, "memory": "24Gi"}},
        "nodeSelector": {"accelerator": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "settings": {"engine.max_slots": "256", "server.log_level": "warning"},
        "networkPolicy": {
            "enabled": True,
            "clientNamespaces": ["web"],
            "monitoringNamespace": "watch",
            "collectorPorts": [4317],
        },
    },
}
WRONG = {
    "store.existingSecret": {"identity": {"anybody": True}},
    "identity": {"store": {"existingSecret": "store"}},
    "replica": PLAIN | {"replica": 3},
    "autoscaling.kind": PLAIN | {"autoscaling": {"kind": "cron"}},
    "autoscaling.saturation": PLAIN | {"autoscaling": {"kind": "keda", "saturation": 70}},
    "drainSeconds": PLAIN | {"drainSeconds": 0},
    "enginemax_slots": PLAIN | {"settings": {"enginemax_slots": "4"}},
    "envoy.replicas": PLAIN | {"envoy": {"enabled": True, "replicas": 0}},
}
SERVER, PROXY = ("Deployment", "shop-hope-serve"), ("Deployment", "shop-hope-serve-proxy")
