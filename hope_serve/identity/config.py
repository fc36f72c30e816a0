"""[tls] and [identity] of the configuration."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from hope_serve.section import Range, Section, is_loopback

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA",
)  # fmt: skip
"""Of signatures that the verifier cannot make: a key that only verifies is no secret to lose."""


class TlsConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files, read again when they change. Without a certificate everything travels in the clear.

    With ``client_ca`` only clients with a certificate of one of these authorities get as far as a call.
    """

    certificate: str = ""
    private_key: str = ""
    client_ca: str = ""
    metrics: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.certificate) != bool(self.private_key):
            raise ValueError("certificate and private_key belong together; set both or neither")
        if self.client_ca and not self.certificate:
            raise ValueError("client_ca is set and certificate is not; set certificate and private_key too")

    @property
    def enabled(self) -> bool:
        """Whether the ports speak TLS."""
        return bool(self.certificate)


class IdentityConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where credentials come from. With neither ``key_file`` nor ``jwks`` every caller may everything."""

    key_file: str = ""
    jwks: str = ""
    issuer: str = ""
    audience: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    leeway_seconds: Annotated[float, Range(0.0, 600.0)] = 30.0
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    subject_is_user: bool = False
    reload_seconds: Annotated[float, Range(0.05, 3600.0)] = 1.0
    jwks_seconds: Annotated[float, Range(0.05, 86_400.0)] = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.jwks:
            return
        if not (self.issuer and self.audience):
            raise ValueError("jwks is set, and issuer or audience is not; a token for others would be taken: set both")
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise ValueError(f"algorithms has {unknown or 'none'}; choose among {', '.join(ALGORITHMS)}")
        url = urlsplit(self.jwks)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            raise ValueError(f"jwks is {self.jwks}; keys that come in the clear can be exchanged: use https")
        if url.scheme not in ("", "http", "https"):
            raise ValueError(f"jwks is {self.jwks}; name a file, or an https:// URL")

    @property
    def required(self) -> bool:
        """Whether callers must show a credential."""
        return bool(self.key_file or self.jwks)
