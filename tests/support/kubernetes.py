"""The chart as Kubernetes would see it: rendered by helm, checked by the schemas of a cluster and its operators."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from support.promql import ROOT

CHART = ROOT / "deploy" / "chart"
NODE = Path(sys.prefix) / "node"
VERSION = "1.35"
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}


class RefusedValues(Exception):
    """Helm did not take them."""


def render(values, folder, *, release="shop"):
    """Every object that the chart makes of these values, by (kind, name)."""
    file = Path(folder) / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = _helm("template", release, CHART, "--namespace", "prod", "--kube-version", VERSION, "--values", file)
    if done.returncode:
        raise RefusedValues(done.stderr)
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def lint(values, folder):
    """What ``helm lint --strict`` finds wrong; empty when nothing is."""
    file = Path(folder) / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = _helm("lint", "--strict", CHART, "--values", file)
    return done.stdout + done.stderr if done.returncode else ""


def faults(objects, folder):
    """What a cluster would refuse, unknown fields included."""
    custom = [found for found in objects if found["kind"] in CUSTOM]
    found = [fault for built_in in objects if built_in["kind"] not in CUSTOM if (fault := _fault(built_in))]
    return found + [fault for fault in _custom_faults(custom, folder) if fault]


def _fault(built_in):
    try:
        kubernetes_validate.validate(built_in, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{built_in['kind']} {built_in['metadata']['name']}: {error.message}"
    return None


def _custom_faults(objects, folder):
    if not objects:
        return []
    file = Path(folder) / "objects.json"
    file.write_text(json.dumps(objects))
    script = (ROOT / "tests" / "node" / "validate.mjs").read_text()
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", script, str(file)],
        cwd=NODE,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _helm(*arguments):
    helm = NODE / "helm" / "helm"
    assert helm.exists(), "no helm: `make test` brings it"
    return subprocess.run([str(helm), *map(str, arguments)], capture_output=True, text=True, check=False)
