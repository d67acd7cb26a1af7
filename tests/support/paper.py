"""One warehouse without any run for all tests that only ask what the configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from warehouse.configuration import configured_in_memory
from warehouse.database import Connection


@contextmanager
def paper_connection() -> Iterator[Connection]:
    """The shared warehouse; what is changed within is rolled back."""
    connection = _shared()
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        connection.execute("ROLLBACK")


@lru_cache(maxsize=1)
def _shared() -> Connection:
    return configured_in_memory()
