"""The runs that a bundles store holds, listed once per command and looked up by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quantgate.bundles.identity import comparison_id
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.order import declared_order
from quantgate.bundles.store import BundleStore


class RunHistory:
    """Manifests of a bundles store as they were when a command began, the first declared first."""

    def __init__(self, manifests: Iterable[Manifest], latest_order: int = 0) -> None:
        """Sort and index the manifests.

        Args:
            manifests: in any order.
            latest_order: the highest number that a run was declared with in their store.
        """
        self.runs = tuple(sorted(manifests, key=declared_order))
        self.latest_order = max([latest_order, *(run.declared_order for run in self.runs)])
        self._by_comparison: dict[str, list[Manifest]] | None = None
        self._by_fingerprint: dict[str, list[Manifest]] = {}
        for run in self.runs:
            self._by_fingerprint.setdefault(run.fingerprint, []).append(run)

    @classmethod
    def read(cls, store: BundleStore) -> RunHistory:
        """List the store once.

        Raises:
            RunError: the store can't be read.
        """
        return cls(store.manifests(), store.latest_order())

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.runs)

    def asking(self, comparison: str) -> tuple[Manifest, ...]:
        """Return the runs of a comparison key, by its id, the first declared first."""
        if self._by_comparison is None:
            self._by_comparison = {}
            for run in self.runs:
                self._by_comparison.setdefault(comparison_id(run), []).append(run)
        return tuple(self._by_comparison.get(comparison, ()))

    def of(self, fingerprint: str) -> tuple[Manifest, ...]:
        """Return the runs of a fingerprint, the first declared first."""
        return tuple(self._by_fingerprint.get(fingerprint, ()))
