"""``python -m mmkernel``."""

from mmkernel.cli import main

main()
