"""The user's own kernel and head train from the user's own folder."""

import json
import os
import subprocess
import sys


def test_custom_kernel_trains(repository, tmp_path):
    command = [
        sys.executable, repository / 'tools/train.py', repository / 'examples/custom_kernel/config.py', '--work-dir', tmp_path,
        '--cfg-options', 'train_cfg.max_epochs=2', 'param_scheduler.warmup_epochs=1', 'default_hooks.logger.interval=1',
        'model.backbone.channels=(4,4,4,4)',
    ]  # fmt: skip
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'epoch_2.pth').is_file()
    (scalars,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert len(records) == 2 * (1437 // 128)
    assert all(0 < record['worst_view'] < 2.1 for record in records)
    assert records[-1]['loss'] < records[0]['loss']


def test_custom_kernel_keeps_the_contract(repository, monkeypatch):
    from mmkernel.kernels.contract import KernelContract
    from mmkernel.registry import KERNELS

    monkeypatch.syspath_prepend(str(repository / 'examples/custom_kernel'))
    if 'InverseMultiquadric' not in KERNELS:
        __import__('my_kernel')
    contract = KernelContract()
    contract.kernel = KERNELS.build(dict(type='InverseMultiquadric', c=0.8))
    tests = [name for name in dir(contract) if name.startswith('test_')]
    assert len(tests) >= 10
    for name in tests:
        getattr(contract, name)()
