"""``python -m benchmarks.verdicts``."""

import sys

from benchmarks.verdicts.command import main

sys.exit(main())
