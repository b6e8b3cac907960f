"""``python -m mmkernel.cli``, where the console script is not installed."""

from mmkernel.cli import main

main()
