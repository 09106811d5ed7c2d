"""The seed of the kernel benches, from the command line."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--seed``."""
    parser.addoption("--seed", type=int, default=0, help="seed of the inputs of the kernel benches")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed given with ``--seed``."""
    return int(request.config.getoption("--seed"))
