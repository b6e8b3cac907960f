"""The cache folder of a person."""

import os
from pathlib import Path


def home() -> Path:
    """The cache folder: the environment variable MMKERNEL_HOME, else ~/.cache/mmkernel (XDG_CACHE_HOME respected)."""
    chosen = os.environ.get('MMKERNEL_HOME')
    if chosen:
        return Path(chosen).expanduser().resolve()
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'mmkernel'
