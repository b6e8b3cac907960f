"""Where things lie: configs and metafiles beside or inside the package, weights in the cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from mmkernel.hashes import hash_in_name
from mmkernel.zoo.metafile import ModelInfo, WeightsFile

PACKAGE = Path(__file__).resolve().parents[1]


def home() -> Path:
    """The cache folder: the environment variable MMKERNEL_HOME, else ~/.cache/mmkernel (XDG_CACHE_HOME respected)."""
    chosen = os.environ.get('MMKERNEL_HOME')
    if chosen:
        return Path(chosen).expanduser().resolve()
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'mmkernel'


def weights_folder() -> Path:
    """One folder per model lies in it; any of them may be deleted at any time."""
    return home() / 'weights'


def path_of(info: ModelInfo, file: WeightsFile) -> Path:
    """Where the file lies once it is there; one unpacked from an archive ends in .pth. Files of the package stay in it."""
    if file.urls and file.urls[0].startswith('package:'):
        return PACKAGE / file.urls[0].removeprefix('package:')
    name = f'{file.name.removesuffix(".tar.gz")}.pth' if file.unpack else file.name
    if file.unpack and hash_in_name(Path(name)):
        name = f'{Path(name).stem}_unpacked.pth'  # the hash is that of the archive
    return weights_folder() / info.name / name


def root() -> Path:
    """The folder that paths like ``configs/<method>/<config>.py`` start from: the package, or the checkout around it.

    A wheel carries ``configs/`` inside the package (see setup.py); a checkout or an editable install has it beside.
    """
    for folder in (PACKAGE, PACKAGE.parent):
        if any(folder.glob('configs/*/metafile.yml')):
            return folder
    raise FileNotFoundError(
        f'There are no metafiles in {PACKAGE}/configs or {PACKAGE.parent}/configs: the installation is incomplete. '
        'Install again from a checkout (pip install .).'
    )


def offline() -> bool:
    """MMKERNEL_OFFLINE=1: nothing is fetched, files that are there already serve."""
    return os.environ.get('MMKERNEL_OFFLINE', '').lower() in ('1', 'true', 'yes', 'on')
