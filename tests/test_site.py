"""The docs site: it builds without a warning, and its pages that are made name everything that there is."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    find_spec('material') is None or find_spec('mkdocstrings_handlers') is None,
    reason='the site needs the extra docs: pip install -e .[docs]',
)


@pytest.fixture(scope='module')
def site(repository, tmp_path_factory):
    """{path below the site: text of the page}"""
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '-d', folder], cwd=repository, text=True,
        capture_output=True, timeout=300, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1', 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob('*.html')}


def test_reference_names_every_command_config_and_hook(site):
    from mmkernel.cli.commands import COMMANDS
    from mmkernel.cli.recipes import names_of_configs
    from mmkernel.registry import HOOKS

    HOOKS.import_from_location()
    for name in COMMANDS:
        assert f'id="mmkernel-{name.replace(" ", "-")}"' in site['reference/commands.html'], name
    for name in names_of_configs():
        assert f'id="{name.replace("/", "-").lower()}"' in site['reference/configs.html'], name
    for name, hook in HOOKS.module_dict.items():
        if hook.__module__.startswith('mmkernel.'):
            assert f'#{hook.__module__}.{name}"' in site['reference/hooks.html'], name


def test_reference_has_the_docstrings(site):
    assert 'id="mmkernel.kernels.series.LegendreKernel"' in site['reference/kernels.html']
    assert 'Zheng et al., Self-supervised learning with rotation-invariant kernels' in site['reference/models.html']
