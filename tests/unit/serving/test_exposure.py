"""Which addresses are refused without keys or TLS."""

from __future__ import annotations

import pytest

from inferloop.core.errors import InvalidInput
from inferloop.serving.exposure import check_exposure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_is_fine(host: str) -> None:
    check_exposure(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5"])
def test_other_addresses_are_refused_unless_the_user_insists(host: str) -> None:
    with pytest.raises(InvalidInput, match="can be reached from other machines") as caught:
        check_exposure(host, insecure=False)
    assert "--insecure" in caught.value.hint
    check_exposure(host, insecure=True)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70 + ".b", "\ud800"])
def test_a_host_without_an_address_is_no_exposure_but_a_mistake(host: str) -> None:
    with pytest.raises(InvalidInput, match="no address is known for host"):
        check_exposure(host, insecure=False)


def test_a_guarded_server_may_be_reached_by_all() -> None:
    check_exposure("0.0.0.0", insecure=False, guarded=True)
