"""`python -m rlhf.cli`."""

import sys

from rlhf.cli import main

sys.exit(main())
