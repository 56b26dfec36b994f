"""``python -m supervisor.cli`` is ``creamas-supervisor``."""

import sys

from supervisor.cli.main import main

sys.exit(main())
