"""What a server may not do by accident: be open to the network, or let credentials travel in the clear."""

from __future__ import annotations

from hope_serve.identity.config import IdentityConfig, TlsConfig
from hope_serve.section import ConfigError, is_loopback, parse_address


def check_exposure(
    listen: str, tls: TlsConfig, identity: IdentityConfig, *, insecure: bool, key: str = "server.listen"
) -> None:
    """Refuse an address that others reach, unless it is secured or the operator says ``insecure``.

    Raises:
        ConfigError: naming address, danger and remedies.
    """
    host, _ = parse_address(listen, key)
    if insecure or is_loopback(host):
        return
    if not tls.enabled:
        danger = "credentials would travel in the clear" if identity.required else "anybody there reads every memory"
        raise ConfigError(
            f"{key} is {listen}, which other machines reach, without TLS: {danger}; set tls.certificate and "
            "tls.private_key, listen on 127.0.0.1, or say server.insecure = true (--insecure) where something else "
            "guards the port"
        )
    if not identity.required and not tls.client_ca:
        raise ConfigError(
            f"{key} is {listen}, which other machines reach, and nobody is asked who they are; set "
            "identity.key_file, identity.jwks or tls.client_ca, listen on 127.0.0.1, or say server.insecure = true"
        )
