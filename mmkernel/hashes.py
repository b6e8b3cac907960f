"""The bytes of a file against the hash that its name tells: ``name-ab12cd34.pth``, the convention of torch.hub and OpenMMLab."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

BLOCK = 1 << 20
IN_NAME = re.compile(r'-([0-9a-f]{8,64})(\.(pth|pt|th|tar|gz|pkl|bin|safetensors|ckpt))+$', re.IGNORECASE)
COUNTED = re.compile(
    r'000\d*|(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d*'
)  # a step or a date: digits, but no hash


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """sha256 and md5 of files, one after the other as if they were one."""
    found = dict(sha256=hashlib.sha256(), md5=hashlib.md5(usedforsecurity=False))
    for path in paths:
        with open(path, 'rb') as file:
            while block := file.read(BLOCK):
                for digest in found.values():
                    digest.update(block)
    return {name: digest.hexdigest() for name, digest in found.items()}


def hash_in_name(path: Path) -> str | None:
    """'ab12cd34' of ``name-ab12cd34.pth``; None for a name without one."""
    found = IN_NAME.search(path.name)
    return None if found is None or COUNTED.fullmatch(found[1]) else found[1].lower()


def wrong_name(path: Path) -> str | None:
    """What is wrong with a file that has other bytes than its name tells by its sha256 or md5; None if nothing is."""
    wanted = hash_in_name(path)
    found = {} if wanted is None else hashes([path])
    if wanted is None or any(digest.startswith(wanted) for digest in found.values()):
        return None
    return (
        f"'{path}' has the sha256 {found['sha256'][: len(wanted)]}, its name says {wanted}: it was damaged or changed. Fetch it "
        'again from its source. If these digits are no hash of what it holds, rename the file.'
    )
