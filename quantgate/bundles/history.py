"""The runs that a bundles store holds, listed once per command and looked up by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore


class RunHistory:
    """Manifests of a bundles store as they were when a command began, oldest first."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        """Index the manifests.

        Args:
            manifests: oldest first.
        """
        self.manifests = tuple(manifests)
        self._by_fingerprint: dict[str, list[Manifest]] = {}
        for manifest in self.manifests:
            self._by_fingerprint.setdefault(manifest.fingerprint, []).append(manifest)

    @classmethod
    def read(cls, store: BundleStore) -> RunHistory:
        """List the store once.

        Raises:
            RunError: the store can't be read.
        """
        return cls(store.manifests())

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.manifests)

    def of(self, fingerprint: str) -> tuple[Manifest, ...]:
        """Return the runs of a fingerprint, oldest first: measured and unchanged is not measured again."""
        return tuple(self._by_fingerprint.get(fingerprint, ()))
