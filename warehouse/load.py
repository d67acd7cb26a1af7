"""The only writer: loads bundles into the warehouse, idempotently, while readers go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
from pydantic import Field

from quantgate.bundles.claims import candidate_key, claim_key
from quantgate.bundles.identity import VERDICT_KEYS
from quantgate.bundles.manifest import damaged, parse_manifest
from quantgate.bundles.schema import BUNDLE_FILES, PROMPTS_FILE
from quantgate.bundles.store import Bundle, BundleStore, Declared, scored_runs
from quantgate.model.errors import QuantgateError, RunError
from quantgate.model.yaml_file import Strict, fingerprint_of
from warehouse.architectures import refresh_bounds
from warehouse.configuration import CONFIGS, Configuration, add_policy, read_configuration, refresh
from warehouse.controls import refresh_controls
from warehouse.database import (
    UNEXPECTED,
    Connection,
    create_views,
    insert_arrow,
    insert_rows,
    migrate,
    refresh_materialized,
    replace_rows,
    schema_digest,
    set_setting,
    setting,
    transaction,
    writing,
)
from warehouse.evidence.mlperf import evidence_folder
from warehouse.fidelity import compare_all
from warehouse.judge_runs import judge_rows
from warehouse.prices.offers import imported_folder
from warehouse.query import read_only
from warehouse.rows import claim_row, declaration_row, engine_start_rows, run_row, task_rows
from warehouse.swap import exclusive, next_state, remove_leftovers

_BATCH_BYTES = 128 << 20
"""Size of an insert, bytes in memory: enough to fill DuckDB's row groups (122,880 rows), so that they are written once,
compressed, without the write-ahead log."""
_DIGEST, _DECLARED = "configuration", "declared"
_KEYS = pa.schema(
    [
        ("run_id", pa.string()),
        ("verdict_key", pa.string()),
        ("claim_key", pa.string()),
        ("candidate_key", pa.string()),
        ("weights_sha256", pa.string()),
        ("baseline_weights", pa.string()),
        ("counts_as_try", pa.bool_()),
        ("serving_arguments", pa.map_(pa.string(), pa.string())),
    ]
)
"""Columns of ``store.runs`` that are computed anew when what makes a key changes."""
_UNJUDGED = """
    SELECT c.run_id, c.baseline_run_id
    FROM store.runs c
    JOIN store.runs b ON b.run_id = c.baseline_run_id
    WHERE EXISTS (SELECT 1 FROM store.run_tasks t WHERE t.run_id = c.run_id)
      AND NOT EXISTS (SELECT 1 FROM store.verdicts v WHERE v.run_id = c.run_id)
    ORDER BY c.baseline_run_id, c.run_id
"""


class LoadReport(Strict):
    """The result of a load."""

    loaded: tuple[str, ...] = Field(description="Runs that this load inserted.")
    present: int = Field(description="Runs that were in the warehouse already.")
    judged: tuple[str, ...] = Field(description="Candidates that this load judged.")
    problems: tuple[str, ...] = Field(
        description="One line for each bundle, declaration or imported file that was left out."
    )
    swapped: bool = Field(description="True if the warehouse changed.")


@dataclass
class _State:
    """The warehouse before a load."""

    run_ids: frozenset[str] = frozenset()
    digest: str | None = None
    declared: str | None = None
    """Digest of the declarations that were loaded."""
    unjudged: list[tuple[str, str]] = field(default_factory=list)
    questions: frozenset[str] = frozenset()
    """Files of the declarations that were loaded."""
    left_out: frozenset[str] = frozenset()
    """Lines of what the last load left out."""


class _Source(NamedTuple):
    """What a load reads, but for the bundles."""

    warehouse: Path
    store: BundleStore
    configuration: Configuration
    digest: str
    """Of the configuration and the schema."""
    questions: Sequence[Declared]
    """Those that are new."""
    stored: frozenset[str]
    """Runs whose bundles the store lists."""


@dataclass
class _Changes:
    """What a load did."""

    loaded: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    swapped: bool = False

    def add(self, other: _Changes) -> None:
        self.loaded += other.loaded
        self.judged += other.judged
        self.problems += other.problems
        self.swapped |= other.swapped


def load_bundles(
    warehouse: Path, bundles: str | Path, *, configs: Path = CONFIGS, wait_s: float = 600
) -> LoadReport:
    """Load every new bundle into the warehouse and judge the candidates among them.

    The next state is prepared beside the warehouse and renamed over it, under a lock: a kill at any moment
    leaves the old state or the new one, and readers of the old file go on. If nothing is new, the warehouse stays
    as it is. A bundle, a declaration or an imported file that is damaged, or that the warehouse refuses, is left out
    with one line, never half loaded, and stops nothing else.

    Args:
        warehouse: the DuckDB file; created if it doesn't exist.
        bundles: folder or fsspec URL of the bundles.
        configs: folder of gpus.yaml, prices.yaml and policy.yaml; imported files lie beside the warehouse.
        wait_s: how long to wait for another load, seconds.

    Raises:
        ConfigError: a configuration file is wrong, or the warehouse is newer than this Quantgate.
        RunError: another load is in progress, or the warehouse can't be read.
    """
    configuration = read_configuration(configs, imported_folder(warehouse), evidence_folder(warehouse))
    digest = fingerprint_of([configuration.digest(), schema_digest(), VERDICT_KEYS])
    store = BundleStore(bundles)
    with exclusive(warehouse, wait_s):
        remove_leftovers(warehouse)
        before = _state(warehouse)
        done = _Changes(problems=list(configuration.problems))
        known = before.questions if before.digest == digest else ()
        stored, questions = store.run_ids(), store.declarations(known, done.problems)
        source = _Source(warehouse, store, configuration, digest, questions, frozenset(stored))
        new = [run_id for run_id in stored if run_id not in before.run_ids and store.is_bundle(run_id)]
        refused = {run_id for run_id in new if any(run_id in line for line in before.left_out)}
        groups = [run_id for run_id in new if run_id not in refused], sorted(refused)
        for group in filter(None, groups) if new else ((),):
            done.add(_load(source, group))
        done.problems = list(dict.fromkeys(done.problems))
        done.swapped |= _note_left_out(warehouse, done.problems)
    return LoadReport(
        loaded=tuple(done.loaded),
        present=len(before.run_ids),
        judged=tuple(done.judged),
        problems=tuple(done.problems),
        swapped=done.swapped,
    )


def _load(source: _Source, run_ids: Sequence[str]) -> _Changes:
    """Load bundles; where the warehouse refuses one, load the others and report it.

    Which one it is shows by halving: whatever refuses it, a table, a view or a test, and whatever state that leaves
    DuckDB in.

    Raises:
        RunError: the warehouse refuses its next state without any new bundle.
    """
    try:
        return _swap(source, run_ids)
    except duckdb.InterruptException:
        raise
    except UNEXPECTED as error:
        what = f"{type(error).__name__}: {error}"
        if not run_ids and isinstance(error, duckdb.Error):
            raise RunError(
                f"its next state can't be made ({what})",
                where=str(source.warehouse),
                hint="Move it away and run `quantgate load`: it is rebuilt from the bundles.",
            ) from None
        if not run_ids:
            raise
    done = _Changes()
    if len(run_ids) == 1:
        done.add(_load(source, ()))
        done.problems.append(str(damaged(run_ids[0], f"the warehouse refuses it ({what})")))
        return done
    half = len(run_ids) // 2
    for part in (run_ids[:half], run_ids[half:]):
        done.add(_load(source, part))
    return done


def _swap(source: _Source, run_ids: Sequence[str]) -> _Changes:
    """Bring the warehouse to its next state, in which these bundles are loaded."""
    warehouse, store = source.warehouse, source.store
    before, done = _state(warehouse), _Changes()
    sound = _sound(store, run_ids, done.problems)
    first = next(sound, None)
    judgeable = [pair for pair in before.unjudged if source.stored.issuperset(pair)]
    changed = before.digest != source.digest
    declared = before.declared != fingerprint_of(store.declared_names())
    if first is not None or changed or judgeable or declared:
        with next_state(warehouse) as path:
            done.loaded, done.judged = _write(
                path, chain([first] if first else [], sound), source, changed, done.problems
            )
            done.swapped = bool(done.loaded or done.judged or changed or declared)
            if not done.swapped:
                path.unlink()
    return done


def _note_left_out(warehouse: Path, problems: Sequence[str]) -> bool:
    """Keep the lines for `quantgate status`; return False if they are those of the last load."""
    lines = {line.encode("utf-8", "backslashreplace").decode() for line in problems}
    if lines == _state(warehouse).left_out:
        return False
    with next_state(warehouse) as path, writing(path) as connection, transaction(connection):
        replace_rows(connection, "left_out", [{"line": line} for line in sorted(lines)])
    return True


def _state(warehouse: Path) -> _State:
    if not warehouse.exists():
        return _State()
    with read_only(warehouse) as connection:
        try:
            return _State(
                frozenset(_column(connection, "SELECT run_id FROM store.runs")),
                setting(connection, _DIGEST),
                setting(connection, _DECLARED),
                connection.execute(_UNJUDGED).fetchall(),
                frozenset(_column(connection, "SELECT file FROM store.declarations")),
                frozenset(_column(connection, "SELECT line FROM store.left_out")),
            )
        except duckdb.CatalogException:  # of an earlier version
            pass
        try:
            return _State(frozenset(_column(connection, "SELECT run_id FROM store.runs")))
        except duckdb.CatalogException:
            return _State()


def _column(connection: Connection, sql: str) -> list[str]:
    return [value for (value,) in connection.execute(sql).fetchall()]


def _sound(store: BundleStore, run_ids: Iterable[str], problems: list[str]) -> Iterator[Bundle]:
    """Read bundles one at a time; report each damaged one as a line of ``problems``."""
    for run_id in run_ids:
        try:
            yield store.read(run_id)
        except QuantgateError as error:
            problems.append(str(error))
        except UNEXPECTED as error:
            problems.append(str(damaged(run_id, f"it can't be read ({type(error).__name__}: {error})")))


def _write(
    path: Path, bundles: Iterable[Bundle], source: _Source, reconfigured: bool, problems: list[str]
) -> tuple[list[str], list[str]]:
    """Bring the database at ``path`` to the next state; return the runs loaded and the runs judged."""
    store = source.store
    with writing(path) as connection:
        migrate(connection)
        keys_change = setting(connection, "verdict_keys") != VERDICT_KEYS
        if keys_change:
            _keep_standing(connection)
            _refresh_keys(connection, store)
        _load_declarations(connection, store, source.questions)
        loaded: list[str] = []
        for batch in _batches(bundles):
            _insert(connection, batch)
            loaded.extend(bundle.manifest.run_id for bundle in batch)
        _join_earlier_versions(connection)
        if reconfigured:
            with transaction(connection):
                refresh(connection, source.configuration)
                create_views(connection)
                set_setting(connection, _DIGEST, source.digest)
        refresh_bounds(connection, all_runs=reconfigured)
        judged = _judge_all(connection, store, problems)
        refresh_controls(connection)
        compare_all(connection)
        refresh_materialized(connection)
        if keys_change:
            _note_changed_verdicts(connection)
    return loaded, judged


def _batches(bundles: Iterable[Bundle]) -> Iterator[list[Bundle]]:
    """Group bundles into batches of about `_BATCH_BYTES` in memory, at least one bundle each."""
    batch: list[Bundle] = []
    size_bytes = 0
    for bundle in bundles:
        batch.append(bundle)
        size_bytes += sum(table.nbytes for table in bundle.tables.values())
        if size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _insert(connection: Connection, batch: Sequence[Bundle]) -> None:
    manifests = [bundle.manifest for bundle in batch]
    with transaction(connection):
        insert_rows(connection, "runs", map(run_row, manifests))
        insert_rows(connection, "engine_starts", chain.from_iterable(map(engine_start_rows, manifests)))
        insert_rows(connection, "run_tasks", chain.from_iterable(map(task_rows, manifests)))
        for name, policy in {
            (m.policy_name, m.policy.fingerprint()): (m.policy_name, m.policy) for m in manifests
        }.values():
            add_policy(connection, name, policy)
        for name in BUNDLE_FILES:
            if name == PROMPTS_FILE:
                connection.register("incoming", pa.concat_tables(bundle.tables[name] for bundle in batch))
                connection.execute(
                    "INSERT INTO store.prompts SELECT DISTINCT ON (prompt_hash) * "
                    "FROM incoming ANTI JOIN store.prompts USING (prompt_hash)"
                )
                connection.unregister("incoming")
            else:
                insert_arrow(
                    connection,
                    name.removesuffix(".parquet"),
                    pa.concat_tables(_with_run_id(b, name) for b in batch),
                )


def _with_run_id(bundle: Bundle, name: str) -> pa.Table:
    table = bundle.tables[name]
    return table.append_column(
        "run_id", pa.repeat(pa.scalar(bundle.manifest.run_id, pa.string()), table.num_rows)
    )


def _judge_all(connection: Connection, store: BundleStore, problems: list[str]) -> list[str]:
    """Judge every candidate that has no verdict yet and whose baseline's run is loaded."""
    judged = judge_rows(store, connection.execute(_UNJUDGED).fetchall())
    problems += [f"run {run_id} could not be judged: {error}" for run_id, error in judged.errors.items()]
    with transaction(connection):
        judged.insert(connection)
    return judged.run_ids


def _refresh_keys(connection: Connection, store: BundleStore) -> None:
    """Give every stored run the keys that it has by now.

    A run whose bundle is gone keeps the keys that it had. Verdicts that this changes are kept for ``quantgate status``.

    Args:
        connection: a warehouse that is being written, with today's views.
        store: where the bundles lie.
    """
    changed = []
    for (run_id,) in connection.execute("SELECT run_id FROM store.runs").fetchall():
        with contextlib.suppress(QuantgateError):
            changed.append(claim_row(store.read_manifest(run_id)) | {"run_id": run_id})
    with transaction(connection):
        if changed:
            connection.register("incoming", pa.Table.from_pylist(changed, schema=_KEYS))
            columns = ", ".join(f"{name} = incoming.{name}" for name in _KEYS.names if name != "run_id")
            connection.execute(
                f"UPDATE store.runs SET {columns} FROM incoming WHERE runs.run_id = incoming.run_id"  # noqa: S608
            )
            connection.unregister("incoming")
        set_setting(connection, "verdict_keys", VERDICT_KEYS)


_UNREAD_WEIGHTS = """
    SELECT r.run_id, r.manifest, any_value(coalesce(k.manifest ->> '$.checkpoint.related_weights', k.weights_sha256))
    FROM store.runs r
    JOIN store.runs k ON k.revision = r.revision AND k.weights_sha256 IS NOT NULL
    WHERE r.weights_sha256 IS NULL
    GROUP BY ALL
"""


def _join_earlier_versions(connection: Connection) -> None:
    """Join runs of earlier versions to the claims of later runs of the same revision, whose tensors were read."""
    changed = []
    for run_id, raw, weights in connection.execute(_UNREAD_WEIGHTS).fetchall():
        manifest = parse_manifest(raw.encode(), run_id)
        checkpoint = manifest.checkpoint.model_copy(update={"weights_sha256": weights})
        known = manifest.model_copy(update={"checkpoint": checkpoint})
        changed.append((weights, claim_key(known), candidate_key(known), run_id))
    if changed:
        with transaction(connection):
            connection.executemany(
                "UPDATE store.runs SET weights_sha256 = ?, claim_key = ?, candidate_key = ? WHERE run_id = ?",
                changed,
            )


def _keep_standing(connection: Connection) -> None:
    """Keep what stands before keys are computed anew."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE stood AS SELECT run_id, use, verdict FROM store.standing_verdicts"
    )


def _note_changed_verdicts(connection: Connection) -> None:
    """Record which standing verdicts new keys have changed, and why, for ``quantgate status``."""
    with transaction(connection):
        connection.execute(
            "INSERT INTO store.changed_verdicts "
            "SELECT run_id, use, b.verdict, v.verdict, coalesce(v.reason, ''), now() "
            "FROM stood b JOIN store.standing_verdicts v USING (run_id, use) WHERE v.verdict <> b.verdict"
        )


def _load_declarations(connection: Connection, store: BundleStore, questions: Sequence[Declared]) -> None:
    """Load what runs declared before they asked: a run that was killed is a try too, which only this shows."""
    names = store.declared_names()
    known = set(_column(connection, "SELECT file FROM store.declarations"))
    scored = sorted(scored_runs(names))
    with transaction(connection):
        new = (declaration_row(declared) for declared in questions if declared.name not in known)
        insert_rows(connection, "declarations", new)
        connection.execute(
            "UPDATE store.declarations SET scored = true WHERE NOT scored AND list_contains($scored, run_id)",
            {"scored": scored},
        )
        set_setting(connection, _DECLARED, fingerprint_of(names))
