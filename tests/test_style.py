"""Rules of the house that a machine can read: no method's name in code, short files and heads, documented public classes."""

import ast
import re
from collections import Counter

METHODS = re.compile(
    r'simclr|moco|byol|simsiam|swav|barlow|vicreg|sfrik|w_?mse|deepcluster|lejepa|sigreg|visreg|mmcr|tico|corinfomax|frossl',
    re.I,
)


def trees(repository, folder='mmkernel'):
    for path in sorted((repository / folder).rglob('*.py')):
        yield path.relative_to(repository), ast.parse(path.read_text())


def docstrings(tree):
    """The nodes of all docstrings: citations and comparisons may name a method."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            yield node.body[0].value


def test_methods_are_named_in_citations_only(repository):
    found = []
    for path, tree in trees(repository):
        cited = set(map(id, docstrings(tree)))
        if path.name == 'commands.py':  # examples name configs and models of the zoo
            cited |= {id(node) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        for node in ast.walk(tree):
            words = [getattr(node, field, None) for field in ('id', 'name', 'attr', 'arg')]
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in cited:
                words.append(node.value)
            found += [f'{path}:{node.lineno} {w}' for w in words if isinstance(w, str) and METHODS.search(w)]
    assert not found, '\n'.join(found)


def test_a_file_is_short_and_its_name_stands_once(repository):
    files = [path for path in (repository / 'mmkernel').rglob('*.py')]
    for path in files:
        assert len(path.read_text().splitlines()) < 200, path.relative_to(repository)
    names = Counter(path.name for path in files if path.name != '__init__.py')
    assert not [name for name, count in names.items() if count > 1]


def test_a_head_fits_one_screen_or_two(repository):
    for path, tree in trees(repository, 'mmkernel/models/heads'):
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno - node.lineno < 100, f'{path} {node.name}'


def test_public_classes_and_functions_say_what_they_are(repository):
    silent = []
    for path, tree in trees(repository):
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith('_') and not ast.get_docstring(node):
                silent.append(f'{path}:{node.lineno} {node.name}')
        if not ast.get_docstring(tree):
            silent.append(f'{path} has no docstring')
    assert not silent, '\n'.join(silent)


def test_no_error_is_swallowed(repository):
    for path, tree in trees(repository):
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f'{path}:{node.lineno}: a bare except'
                assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f'{path}:{node.lineno}'
