"""mmkernel env: what is installed, and what is known to fail."""

import json
import sys

import pytest

from mmkernel.cli import machine, main


def test_env_of_this_machine(capsys):
    main(['env', '--json'])
    found = json.loads(capsys.readouterr().out)
    assert found['packages']['torch']
    assert found['devices']['cpu']
    assert 'python' in found['machine']
    assert not [trouble for trouble in found['troubles'] if trouble['stops']]
    main(['env'])
    assert found['packages']['torch'] in capsys.readouterr().out


def said(monkeypatch, packages, required=None, devices=None):
    monkeypatch.setattr(machine, 'required', lambda: required or {})
    return {t.what: t for t in machine.troubles(packages, devices or {'cpu': 'x'})}


def test_what_is_missing_or_of_another_version_stops(monkeypatch, capsys):
    found = said(monkeypatch, {'timm': None, 'mmengine': '0.9.1'}, {'timm': '>=1.0', 'mmengine': '==0.10.7'})
    assert found['timm is missing'].fix == "pip install 'timm>=1.0'"
    assert found['mmengine 0.9.1 is here, mmkernel asks for ==0.10.7'].stops
    monkeypatch.setattr(machine, 'versions', lambda: {'timm': None})
    monkeypatch.setattr(machine, 'required', lambda: {'timm': '>=1.0'})
    with pytest.raises(SystemExit) as stop:
        main(['env'])
    assert stop.value.code == 1
    assert "pip install 'timm>=1.0'" in capsys.readouterr().out


def test_two_packages_in_one_folder(monkeypatch):
    found = said(
        monkeypatch, {'faiss-cpu': '1', 'faiss-gpu-cu12': '1', 'opencv-python': '5', 'opencv-python-headless': '5'}
    )
    assert {'faiss-cpu and faiss-gpu-cu12 share one folder'} < set(found)
    assert not any(trouble.stops for trouble in found.values())


def test_a_package_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    (found,) = said(monkeypatch, {}).values()
    assert found.what.startswith('cv2 cannot be imported')
    assert 'opencv-python-headless' in found.fix
    assert found.stops


def test_a_driver_without_a_gpu(monkeypatch):
    monkeypatch.setattr(machine.shutil, 'which', lambda name: '/usr/bin/nvidia-smi')
    monkeypatch.setattr('torch.version.cuda', None)
    (found,) = said(monkeypatch, {})
    assert 'built without CUDA' in found
    monkeypatch.setattr('torch.version.cuda', '13.0')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    (found,) = said(monkeypatch, {}).values()
    assert found.fix == 'unset CUDA_VISIBLE_DEVICES'


@pytest.mark.parametrize('capability, built, runs', [
    ('8.6', ['sm_80', 'sm_90'], True), ('9.0', ['sm_80'], False), ('9.0', ['sm_80', 'compute_80'], True),
    ('12.0', ['sm_100', 'sm_120'], True), ('7.0', ['sm_75', 'sm_90', 'compute_90'], False),
])  # fmt: skip
def test_code_for_a_gpu(capability, built, runs):
    assert machine.has_code_for(capability, built) is runs
