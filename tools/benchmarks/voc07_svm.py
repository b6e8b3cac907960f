"""``mmkernel svm``, where the package is not installed. ``--help`` lists what it takes."""

import sys

from mmkernel.cli import main

if __name__ == '__main__':
    main(['svm', *sys.argv[1:]])
