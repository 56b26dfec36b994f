"""``python -m supervisor.cli`` is ``creamas-supervisor``."""

from __future__ import annotations

import sys

from supervisor.cli import main

sys.exit(main())
