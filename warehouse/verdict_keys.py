"""What a stored run's verdict belongs to, made anew where an earlier Quantgate made it otherwise."""

from __future__ import annotations

import contextlib

from quantgate.bundles.identity import VERDICT_KEYS, verdict_key
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import QuantgateError
from warehouse.database import Connection, set_setting, setting

_SETTING = "verdict_keys"


def refresh_keys(connection: Connection, store: BundleStore) -> None:
    """Give every stored run the key that it has by now; once for each change of what makes one.

    A run whose bundle is gone keeps the key that it had.

    Args:
        connection: a warehouse that is being written.
        store: where the bundles lie.
    """
    if setting(connection, _SETTING) == VERDICT_KEYS:
        return
    changed = []
    for run_id, before in connection.execute("SELECT run_id, verdict_key FROM store.runs").fetchall():
        with contextlib.suppress(QuantgateError):
            now = verdict_key(store.read_manifest(run_id))
            if now != before:
                changed.append((now, run_id))
    connection.execute("BEGIN")
    if changed:
        connection.executemany("UPDATE store.runs SET verdict_key = ? WHERE run_id = ?", changed)
    set_setting(connection, _SETTING, VERDICT_KEYS)
    connection.execute("COMMIT")
