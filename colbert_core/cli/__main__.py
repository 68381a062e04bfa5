"""``python -m colbert_core.cli``."""

import sys

from colbert_core.cli.main import main

sys.exit(main())
