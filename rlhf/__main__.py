"""`python -m rlhf`, which is also `deepspeed --module rlhf`."""

import sys

from rlhf.cli import main

sys.exit(main())
