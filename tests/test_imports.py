"""Who may import whom: the walls of the house, read off the syntax tree."""

import ast

import pytest

# room -> rooms it may import, besides itself and the files that stand alone; a head never imports another head.
ALLOWED = {
    'checks': set(),
    'hashes': set(),
    'home': set(),
    'limits': set(),
    '__main__': {'cli'},
    'owner': set(),
    'writing': set(),
    'registry': set(),
    'distributed': set(),
    'kernels': {'distributed', 'registry'},
    'losses': {'distributed', 'registry', 'kernels'},
    'models': {'kernels', 'losses', 'distributed', 'registry'},
    'datasets': {'registry'},
    'evaluation': {'models', 'kernels', 'losses', 'distributed', 'registry', 'datasets'},
    'visualization': {'models', 'kernels', 'losses', 'distributed', 'registry', 'datasets', 'evaluation'},
    'zoo': {'models', 'kernels', 'losses', 'distributed', 'registry', 'datasets', 'evaluation'},
    'engine': {
        'models',
        'kernels',
        'losses',
        'distributed',
        'registry',
        'datasets',
        'evaluation',
        'visualization',
        'zoo',
    },
}
ALLOWED['planning'] = {*ALLOWED['engine'], 'engine'}
ALLOWED['cli'] = {*ALLOWED['planning'], 'planning'}


def imported(path, package):
    """(full module name, line) of each import of mmkernel in a file, relative ones resolved."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split('.')[0] == 'mmkernel')
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = '.'.join([*base, *(node.module or '').split('.')]).strip('.')
            if module == 'mmkernel':
                yield from ((f'mmkernel.{alias.name}', node.lineno) for alias in node.names)
            elif module.split('.')[0] == 'mmkernel':
                yield module, node.lineno


def files(repository):
    package = repository / 'mmkernel'
    return [path for path in package.rglob('*.py') if path != package / '__init__.py']


def test_every_room_is_listed(repository):
    rooms = {path.relative_to(repository / 'mmkernel').parts[0].removesuffix('.py') for path in files(repository)}
    assert rooms == set(ALLOWED)


def test_walls(repository):
    breaches = []
    for path in files(repository):
        parts = path.relative_to(repository).with_suffix('').parts
        room = parts[1]
        for module, line in imported(path, list(parts[:-1])):
            other = module.split('.')[1] if '.' in module else ''
            if (
                other
                and other[0] != '_'
                and other != room
                and other in ALLOWED
                and other not in {'checks', 'hashes', 'home', 'limits', 'owner', 'writing', *ALLOWED[room]}
            ):
                breaches.append(f'{path.relative_to(repository)}:{line} imports {module}')
            inner = module.split('.')
            if parts[1:3] == ('models', 'heads') and inner[1:3] == ['models', 'heads'] and path.stem != '__init__':
                if len(inner) > 3 and inner[3] not in (path.stem, 'head'):
                    breaches.append(f'{path.relative_to(repository)}:{line}: a head imports {module}')
    assert not breaches, '\n'.join(breaches)


def test_collectives_of_losses_stand_in_one_file(repository):
    for room in ('kernels', 'losses', 'models'):
        for path in (repository / 'mmkernel' / room).rglob('*.py'):
            assert 'torch.distributed' not in path.read_text(), path


@pytest.mark.parametrize('room', sorted(ALLOWED))
def test_nothing_names_a_device(repository, room):
    for path in files(repository):
        if path.relative_to(repository / 'mmkernel').parts[0].removesuffix('.py') == room:
            assert '.cuda()' not in path.read_text(), path
