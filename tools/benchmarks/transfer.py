"""``mmkernel transfer``, where the package is not installed. ``--help`` lists what it takes."""

import sys

from mmkernel.cli import main

if __name__ == '__main__':
    main(['transfer', *sys.argv[1:]])
