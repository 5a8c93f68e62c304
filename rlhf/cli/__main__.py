"""`python -m rlhf.cli`; also under `deepspeed --module rlhf.cli`, whose `--local_rank=N` comes before the command."""

import sys

from rlhf.cli import main

sys.exit(main([argument for argument in sys.argv[1:] if not argument.startswith("--local_rank=")]))
