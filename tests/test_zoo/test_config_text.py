"""The text of a config reads back as the same config, in the same order."""

import math

from mmengine.config import Config

from mmkernel.zoo.config_text import config_text, ordered


def test_text_reads_back_in_order():
    long = {f'key_{10 - i}': [i, dict(a=(1,), b=None, c='it\'s "quoted"\n')] for i in range(9)}
    values = dict(
        zebra=dict(type='A', second=1, first=dict(long)),
        apple=(),
        mapping={'0-1': True, 'class': 2.5e-7},
        empty=dict(),
        nested=[(1, 2), [dict(x=float('-inf'))]],
        text='x' * 200,
    )
    namespace = {}
    exec(config_text(values), namespace)
    found = {key: namespace[key] for key in values}
    assert found == values
    assert list(found['zebra']) == ['type', 'second', 'first']
    assert list(found['zebra']['first']) == list(long)
    assert max(map(len, config_text({k: v for k, v in values.items() if k != 'text'}).splitlines())) <= 120


def test_not_a_number_and_the_dumped_file(tmp_path):
    cfg = ordered(Config(dict(b=dict(y=1, x=float('nan')), a=2)))
    cfg.dump(tmp_path / 'config.py')
    again = Config.fromfile(tmp_path / 'config.py')
    assert math.isnan(again.b.x)
    assert list(again.b) == ['y', 'x']
