"""Commits that hub ids without a revision stand for: the first pull decides, so that later runs compare."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import Field, TypeAdapter

from quantgate.bundles.staging import write_json
from quantgate.model.bounded import parse_json, read_bytes
from quantgate.model.config.models import SHA
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.yaml_file import Strict
from tasks.progress import Reporter


class Pin(Strict):
    """The commit that an id without a revision stands for."""

    commit: str = Field(pattern=SHA)
    branch: str = Field(default="main", description="The branch that named it.")
    pinned_at: datetime


_PINS = TypeAdapter(dict[str, Pin])
"""Pins by hub id, as the file holds them."""


def pins_file(home: Home) -> Path:
    """Return the path of a home's pins."""
    return home.path / "pins.json"


def read_pins(path: Path) -> dict[str, Pin]:
    """Read the pins by hub id; none if there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        return _PINS.validate_python(parse_json(read_bytes(path)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ConfigError(
            "holds no pins that can be read",
            where=str(path),
            hint="Put back a copy of it; without the file, ids are pinned again at their next pull.",
        ) from None


class Pins:
    """The pins of one home, as a run uses them.

    Args:
        path: ``pins.json``.
        update: replace a pin by what the branch names now.
    """

    def __init__(self, path: Path, *, update: bool = False) -> None:
        """Read nothing yet."""
        self.path, self.update = path, update

    def pin_of(self, repo: str) -> Pin | None:
        """Return the pin of a repository."""
        return read_pins(self.path).get(repo)

    def settle(self, repo: str, newest: str | None, check: Callable[[str], None]) -> str:
        """Return the commit to use; pin it if none is pinned, and report that.

        Args:
            repo: ``org/name``.
            newest: what the branch names now; None where nobody could say, which only a pin outlives.
            check: raises for a commit that can't be served, which is then not pinned.
        """
        report = Reporter.current().line
        pin = self.pin_of(repo)
        if newest is None or (pin is not None and newest == pin.commit):
            assert pin is not None, "only a pin outlives a hub that can't be asked"
            return pin.commit
        if pin is not None and not self.update:
            report(
                f"{repo}: {pin.branch} has moved to {newest[:12]} since; the pin {pin.commit[:12]} of "
                f"{pin.pinned_at:%Y-%m-%d} is kept; `quantgate doctor --models` lists it, `--update-pins` pins the "
                "new one"
            )
            return pin.commit
        check(newest)
        with FileLock(self.path.with_name(".pins.lock")):
            pins = read_pins(self.path)
            if pin is None and repo in pins:  # another process was first
                return pins[repo].commit
            pins[repo] = Pin(commit=newest, pinned_at=datetime.now(UTC))
            write_json(self.path, _PINS.dump_python(dict(sorted(pins.items())), mode="json"))
        before = f", in place of {pin.commit[:12]}" if pin else ""
        report(f"{repo}: pinned at {newest[:12]}, the commit that {pins[repo].branch} names now{before}")
        return newest
