"""The house, built once for all of the contract's tables, and both of its doors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.house import House, beside, build
from tests.harness.http import Address, Secure


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One Mover before many exports; rows that write renew the scratch image first."""
    with build(tmp_path_factory.mktemp("house")) as built:
        yield built


@pytest.fixture(params=["tcp", "unix"])
def address(house: House, request: pytest.FixtureRequest) -> Address:
    """Each of Mover's addresses in turn."""
    return house.mover.address(unix=request.param == "unix")


@pytest.fixture(scope="session")
def secure(house: House) -> Iterator[Secure]:
    """Where the house is served over TLS."""
    with beside(house, house.room / "secure") as address:
        yield address


@pytest.fixture(params=["tcp", "tls"])
def wire_address(house: House, request: pytest.FixtureRequest) -> Address:
    """Each of Mover's addresses that other hosts reach."""
    if request.param == "tls":
        found: Secure = request.getfixturevalue("secure")
        return found
    return house.mover.address()
