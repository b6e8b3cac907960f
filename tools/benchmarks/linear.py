"""``mmkernel linear``, where the package is not installed. ``--help`` lists what it takes."""

import sys

from mmkernel.cli import main

if __name__ == '__main__':
    main(['linear', *sys.argv[1:]])
