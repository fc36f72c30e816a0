"""What guards the ports: certificates, credentials, and the refusal to start open to everybody by accident."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from hope_serve.config import Config, ConfigError
from hope_serve.identity.authenticator import Authenticator
from hope_serve.identity.exposure import check_exposure
from hope_serve.identity.limits import NO_LIMITS
from hope_serve.identity.tls import Pem, TlsFiles
from hope_serve.server.allowances import Allowances
from hope_serve.server.rationed import rationed

if TYPE_CHECKING:
    from hope_serve.service import Service

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Of one server.

    Args:
        allowances: how much each tenant, user and credential may take.
        has_limits: whether there are any limits.
        records_reads: whether it is put on record who read whose memory.
        authenticator: knows the credentials; None asks nobody for any.
        tls: the certificate; None speaks in the clear.
        tls_for_metrics: whether the metrics port has the certificate too.
    """

    allowances: Allowances
    has_limits: bool = False
    records_reads: bool = False
    authenticator: Authenticator | None = None
    tls: TlsFiles | None = None
    tls_for_metrics: bool = True

    @classmethod
    def load(cls, config: Config) -> Guard:
        """What the configuration asks for; reads files and URLs.

        Raises:
            ConfigError: they cannot be used, or the server would be open to everybody without ``insecure``.
        """
        for key in ("listen", "admin_listen"):
            if address := getattr(config.server, key):
                insecure = config.server.insecure
                check_exposure(address, config.tls, config.identity, insecure=insecure, key=f"server.{key}")
        allowances = Allowances(config.tenant_limits, config.user_limits, burst_seconds=config.server.burst_seconds)
        limited = {config.tenant_limits, config.user_limits} != {NO_LIMITS}
        return cls(
            allowances=allowances,
            records_reads=config.memory.audit_reads,
            has_limits=limited or bool(config.identity.key_file),
            authenticator=Authenticator(config.identity) if config.identity.required else None,
            tls=TlsFiles(config.tls) if config.tls.enabled else None,
            tls_for_metrics=config.tls.metrics,
        )

    @property
    def open(self) -> bool:
        """Whether callers need no credential."""
        return self.authenticator is None

    @property
    def metrics_tls(self) -> Callable[[], ssl.SSLContext] | None:
        """What the metrics port speaks."""
        tls = self.tls
        return (lambda: tls.current().context) if tls and self.tls_for_metrics else None

    def rationed(self, service: Service) -> Service:
        """The service as RPCs see it; the service itself when nobody has limits."""
        return rationed(service, self.allowances) if self.has_limits else service

    def add_port(self, server: grpc.aio.Server, listen: str) -> int:
        """Listen there; the port. Raises RuntimeError when the address cannot be had."""
        if self.tls is None:
            return int(server.add_insecure_port(listen))
        return int(server.add_secure_port(listen, _credentials(self.tls)))

    @asynccontextmanager
    async def following(self, seconds: float) -> AsyncIterator[None]:
        """Credentials follow their files and URLs while inside."""
        if self.authenticator is None:
            yield
            return
        task = asyncio.get_running_loop().create_task(_follow(self.authenticator, seconds), name="credentials")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def _follow(authenticator: Authenticator, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            if await asyncio.to_thread(authenticator.load):
                log.info("credentials were read again")
        except ConfigError as error:
            log.error("the former credentials stay valid: %s", error)


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """gRPC asks at every handshake, on threads of its own, and keeps what it has for None."""
    given = [tls.current()]

    def changed() -> grpc.ServerCertificateConfiguration | None:
        current = tls.current()
        if current is given[0]:
            return None
        given[0] = current
        return _certificate(current)

    return grpc.dynamic_ssl_server_credentials(
        _certificate(given[0]),
        changed,  # type: ignore[arg-type] # the stubs leave out the None that gRPC documents
        require_client_authentication=given[0].client_ca is not None,
    )


def _certificate(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.private_key, pem.certificate)], pem.client_ca)
