"""Report a disk that is full, or takes nothing more for another reason, in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantgate.model.errors import RunError

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Numbers of the errors of such a disk."""


@contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """Name what could not be written; whoever writes so that a file appears whole leaves the old one as it was.

    Raises:
        RunError: a disk refused what was written within.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise RunError(
            f"it can't be written ({os.strerror(error.errno)}), and is as it was",
            where=str(target),
            hint="Free some space there, then try again.",
        ) from None
