"""The PEM files of a TLS server: read together, checked, read again when they change."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass

from hope_serve.identity.config import TlsConfig
from hope_serve.identity.watched import Watched
from hope_serve.section import ConfigError, expanded

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pem:
    """One consistent state of the files; ``client_ca`` None asks clients for no certificate."""

    certificate: bytes
    private_key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class TlsFiles:
    """The files of [tls]. Threads may ask it side by side.

    Raises:
        ConfigError: the files cannot be used now, at the start.
    """

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        paths = [config.certificate, config.private_key, *([config.client_ca] if config.client_ca else [])]
        self._files = Watched(*map(expanded, paths))
        self._lock = threading.Lock()
        self._files.changed()
        self._current = self._read()

    def current(self) -> Pem:
        """The files as they are; while they do not fit together, as they were."""
        with self._lock:
            if self._files.changed():
                try:
                    self._current = self._read()
                    log.info("the certificate was read again: %s", self._files.paths[0])
                except ConfigError as error:
                    log.error("the former certificate stays in use: %s", error)
            return self._current

    def _read(self) -> Pem:
        certificate, private_key, *authority = self._files.paths
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(certificate, private_key, password=_no_password)  # also: whether they fit
            if authority:
                context.load_verify_locations(authority[0])
                context.verify_mode = ssl.CERT_REQUIRED
            return Pem(
                certificate=certificate.read_bytes(),
                private_key=private_key.read_bytes(),
                client_ca=authority[0].read_bytes() if authority else None,
                context=context,
            )
        except (OSError, ValueError) as error:  # SSLError is an OSError
            names = ", ".join(map(str, self._files.paths))
            raise ConfigError(f"tls: {names} cannot be used together: {error}; see that they fit") from error


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal."""
    raise ValueError("the private key is encrypted; write it without a passphrase, readable by the server alone")
