"""No server is open to the network by accident."""

from __future__ import annotations

import pytest

from hope_serve.identity.config import IdentityConfig, TlsConfig
from hope_serve.identity.exposure import check_exposure
from hope_serve.section import ConfigError

CLEAR, SECURED = TlsConfig(), TlsConfig(certificate="c", private_key="k")
MUTUAL = TlsConfig(certificate="c", private_key="k", client_ca="a")
NOBODY, KEYS = IdentityConfig(), IdentityConfig(key_file="f")
FAR = ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "localhost.example.org:1")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
@pytest.mark.parametrize("identity", [NOBODY, KEYS])
def test_on_this_machine_everything_goes(address, identity):
    check_exposure(address, CLEAR, identity, insecure=False)


@pytest.mark.parametrize("address", FAR)
@pytest.mark.parametrize(
    ("tls", "identity", "said"),
    [
        (CLEAR, NOBODY, "anybody there reads every memory"),
        (CLEAR, KEYS, "credentials would travel in the clear"),
        (SECURED, NOBODY, "nobody is asked who they are"),
    ],
)
def test_where_others_reach_it_a_server_needs_tls_and_credentials(address, tls, identity, said):
    with pytest.raises(ConfigError, match=said) as refused:
        check_exposure(address, tls, identity, insecure=False)
    assert address in str(refused.value)
    assert "insecure" in str(refused.value)
    check_exposure(address, tls, identity, insecure=True)


@pytest.mark.parametrize("address", FAR)
@pytest.mark.parametrize(("tls", "identity"), [(SECURED, KEYS), (MUTUAL, NOBODY), (MUTUAL, KEYS)])
def test_with_both_it_may_listen_anywhere(address, tls, identity):
    check_exposure(address, tls, identity, insecure=False)
