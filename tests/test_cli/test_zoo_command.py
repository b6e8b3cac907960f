"""``mmkernel zoo``: what each command prints and how it ends."""

import hashlib
import sys
from pathlib import Path

import pytest

from mmkernel.cli import main
from mmkernel.zoo import catalogue
from mmkernel.zoo.metafile import ModelInfo, WeightsFile

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_zoo'))
from fault_server import BODY, fault_server  # noqa: E402


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('MMKERNEL_HOME', str(tmp_path / 'home'))
    monkeypatch.delenv('MMKERNEL_OFFLINE', raising=False)


def said(capsys):
    return ' '.join(capsys.readouterr().out.split())


def test_list_and_info(capsys):
    main(['zoo', 'list', 'SFRIK_r50*'])
    text = said(capsys)
    assert 'sfrik_r50_L3_q32768_200e' in text
    assert 'vicreg' not in text
    capsys.readouterr()
    main(['zoo', 'list', 'moco_vit_[bl]*_mmselfsup'])
    rows = [line for line in capsys.readouterr().out.splitlines() if 'mmselfsup' in line]
    base, large = next(row for row in rows if 'base' in row), next(row for row in rows if 'large' in row)
    assert base.index('76.9') < base.index('83.0') == large.index('83.7')  # linear, then fine-tuned: a column each
    main(['zoo', 'info', 'sfrik_r50_L3_q32768_200e'])
    text = said(capsys)
    assert 'Top 1 Accuracy 70.3' in text
    assert 'sha256 unknown: pinned on first use' in text
    assert 'link not checked' in text
    main(['zoo', 'info', 'moco_r50_v2_200e'])
    assert 'md5 prefix 59fd9945' in said(capsys)


@pytest.mark.parametrize('argv, words', [
    (['list', 'nothing*'], 'no name matches'), (['info', 'sfrik_digits_L33'], "Did you mean 'sfrik_digits_L3"),
    (['download', 'byol_cifar10'], "no weights of 'byol_cifar10' are public"),
])  # fmt: skip
def test_what_a_person_can_mend_is_one_line(argv, words):
    with pytest.raises(SystemExit, match=words) as end:
        main(['zoo', *argv])
    assert '\n' not in str(end.value)


def test_download_verify_clean(capsys, monkeypatch):
    with fault_server() as (url, _):
        file = WeightsFile('net.pth', (f'{url}/a',), sha256=hashlib.sha256(BODY).hexdigest())
        info = ModelInfo('tiny', 'Tiny', None, files=(file,), note='x')
        monkeypatch.setitem(catalogue.catalogue(catalogue.root()), 'tiny', info)
        main(['zoo', 'download', 'tiny'])
    text = said(capsys)
    assert 'net.pth (0.5 MB)' in text
    path = Path(text.split('tiny: ')[1].split(' (')[0])
    main(['zoo', 'verify'])
    assert 'fine tiny' in said(capsys)
    path.write_bytes(b'x')
    with pytest.raises(SystemExit, match='1'):
        main(['zoo', 'verify', 'tiny'])
    assert 'WRONG tiny' in said(capsys)
    main(['zoo', 'clean', '--leftovers'])
    assert '0.0 MB freed' in said(capsys)
    main(['zoo', 'clean', 'tiny'])
    assert not path.exists()
