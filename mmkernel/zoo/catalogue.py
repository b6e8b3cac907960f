"""The catalogue of models: their names, the rows of the metafiles, and the folders of configs and weights."""

import fnmatch
import os
from functools import cache
from pathlib import Path

from mmengine.config import Config

from mmkernel.checks import did_you_mean
from mmkernel.hashes import hash_in_name
from mmkernel.home import home
from mmkernel.zoo.metafile import MetafileError, ModelInfo, WeightsFile, read_metafile

PACKAGE = Path(__file__).resolve().parents[1]


class UnknownModelError(KeyError):
    """A name that no metafile has."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would quote it


@cache
def catalogue(folder: Path) -> dict[str, ModelInfo]:
    """name -> row, of ``configs/*/metafile.yml`` below ``folder``; MetafileError for a name given twice."""
    found: dict[str, ModelInfo] = {}
    for path in sorted(folder.glob('configs/*/metafile.yml')):
        for info in read_metafile(path)[0]:
            if info.name in found:
                raise MetafileError(f"{path}: the name '{info.name}' is taken, by {found[info.name].collection}.")
            found[info.name] = info
    return found


def list_models(pattern: str = '*', pretrained: bool = False) -> list[str]:
    """Names that match a shell pattern ('*r50*', case ignored), sorted; ``pretrained``: only those with public weights."""
    rows = [info for info in catalogue(root()).values() if info.files or not pretrained]
    return sorted(info.name for info in rows if fnmatch.fnmatch(info.name.lower(), pattern.lower()))


def model_info(name: str) -> ModelInfo:
    """The row of ``name``: config, published results with their sources, files, licence; UnknownModelError suggests near names."""
    rows = catalogue(root())
    if name in rows:
        return rows[name]
    inside = [known for known in rows if name and str(name).lower() in known.lower()][:3]
    otherwise = f'Did you mean {" or ".join(map(repr, inside))}?' if inside else 'mmkernel zoo list shows all names.'
    raise UnknownModelError(f"the zoo has no model '{name}'. {did_you_mean(name, rows, otherwise, n=3)}")


def config_of(info: ModelInfo) -> Config:
    """The config of a row with the options of the row applied; ValueError for weights that no config here builds."""
    if info.config is None:
        raise ValueError(
            f"'{info.name}' is listed for its files only: {info.note} 'mmkernel zoo download {info.name}' fetches them."
        )
    path = root() / info.config
    if not path.is_file():
        raise FileNotFoundError(f"'{info.name}' names the config {info.config}, which is not in {root()}.")
    cfg = Config.fromfile(str(path), import_custom_modules=False)
    if info.config_options:
        cfg.merge_from_dict(info.config_options)
    return cfg


def weights_folder() -> Path:
    """The folder of downloads, with one folder per model. Any of them may be deleted at any time."""
    return home() / 'weights'


def path_of(info: ModelInfo, file: WeightsFile) -> Path:
    """The path of a file in the cache, or in the package if it comes with it. A file out of an archive ends in .pth."""
    if file.urls and file.urls[0].startswith('package:'):
        return PACKAGE / file.urls[0].removeprefix('package:')
    name = f'{file.name.removesuffix(".tar.gz")}.pth' if file.unpack else file.name
    if file.unpack and hash_in_name(Path(name)):
        name = f'{Path(name).stem}_unpacked.pth'  # the hash is that of the archive
    return weights_folder() / info.name / name


def root() -> Path:
    """The folder that contains ``configs/``: the package itself in a wheel (see setup.py), its parent in a checkout."""
    for folder in (PACKAGE, PACKAGE.parent):
        if any(folder.glob('configs/*/metafile.yml')):
            return folder
    raise FileNotFoundError(
        f'There are no metafiles in {PACKAGE}/configs or {PACKAGE.parent}/configs: the installation is incomplete. '
        'Install again from a checkout (pip install .).'
    )


def offline() -> bool:
    """Whether downloads are forbidden (MMKERNEL_OFFLINE=1): only files that are in the cache can be used."""
    return os.environ.get('MMKERNEL_OFFLINE', '').lower() in ('1', 'true', 'yes', 'on')
