"""Puts configs/, with the metafiles of the model zoo, inside the package when it is built.

The rest stands in setup.cfg.

A checkout and an editable install read them where they are (mmkernel/zoo/catalogue.py).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            inside = Path(self.build_lib, 'mmkernel/configs')
            shutil.rmtree(inside, ignore_errors=True)  # of an earlier build
            shutil.copytree('configs', inside, ignore=shutil.ignore_patterns('__pycache__'))


setup(cmdclass=dict(build_py=BuildWithConfigs))
