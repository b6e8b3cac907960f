"""Pages of the docs site that are made when it is built: configs, hooks, commands, API; and pages that lie outside of docs/.

mkdocs.yml names this file as a hook. Nothing of it is written to disk, so none of these pages can be out of date.
"""

import ast
import inspect
import posixpath
import re
from importlib import import_module
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    'model_zoo.md': 'zoo.md',
    'benchmarks/README.md': 'benchmarks.md',
    'tools/benchmarks/README.md': 'evaluation.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
    'README.md': 'index.md',
}
"""Path in the repository -> page of the site. README.md stands for the first page, which is another text."""
MADE = {
    'configs': 'reference/configs.md',
    'mmkernel/engine/hooks.py': 'reference/hooks.md',
    'mmkernel/cli/commands.py': 'reference/commands.md',
}
"""The same of pages that are made, so that a link works in the repository and on the site."""
ROOMS = ('kernels', 'losses', 'models', 'datasets', 'engine', 'evaluation', 'zoo')
LINK = re.compile(r'(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)')


def on_files(files, config):
    """The pages that are made, beside those of docs/."""
    made = {page: (ROOT / path).read_text() for path, page in OUTSIDE.items() if path != 'README.md'}
    made |= {'reference/commands.md': commands(), 'reference/configs.md': configs(), 'reference/hooks.md': hooks()}
    made |= {f'reference/{room}.md': room_page(room) for room in ROOMS}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files of the repository become links to pages, or the names of files where there is no page."""
    origin = next((path for path, name in OUTSIDE.items() if name == page.file.src_uri), f'docs/{page.file.src_uri}')
    if page.file.src_uri == 'index.md':
        origin = 'docs/index.md'
    parts = re.split(r'(^```.*?^```|`[^`\n]+`\])', markdown, flags=re.M | re.S)
    return ''.join(
        part if part.startswith('```') else LINK.sub(lambda m: link(m, origin, page.file.src_uri, files, config), part)
        for part in parts
    )


def link(match, origin, page, files, config):
    text, target = match.groups()
    if re.match(r'[a-z]+:|#', target):
        return match[0]
    path, _, anchor = target.partition('#')
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    rooms = {f'mmkernel/{room}': f'reference/{room}.md' for room in ROOMS}
    name = (OUTSIDE | MADE | rooms).get(wanted, wanted.removeprefix('docs/') if wanted.startswith('docs/') else None)
    if wanted.startswith('configs/') and wanted.endswith('.py') and not wanted.startswith('configs/_base_'):
        name, anchor = 'reference/configs.md', wanted[8:-3].replace('/', '-').lower()
    if name and (files.get_file_from_path(name) or wanted.startswith('docs/')):  # mkdocs names a page that is not there
        return f'{text}({posixpath.relpath(name, posixpath.dirname(page) or ".")}{"#" + anchor if anchor else ""})'
    if config.repo_url:
        return f'{text}({config.repo_url.rstrip("/")}/blob/main/{wanted})'
    shown = text.strip('![]')
    return shown if shown.startswith('`') else f'`{wanted}`'


def commands():
    """Help of every command, from the table that ``mmkernel --help`` prints."""
    from mmkernel.cli import app
    from mmkernel.cli.commands import COMMANDS, FOLDERS, GROUPS

    text = app().generate_docs()
    text = re.sub(r'(?<!`)<(?=[a-z])', '&lt;', text)
    names = [*COMMANDS, *FOLDERS]
    lines = ['# Commands', '', 'One program, `mmkernel`; `mmkernel COMMAND --help` prints what stands here.', '']
    for group in GROUPS:
        found = {name: command for name, command in COMMANDS.items() if command.group == group}
        lines += [
            f'**{group}**',
            '',
            *(f'- [`mmkernel {n}`](#mmkernel-{n.replace(" ", "-")}): {c.summary}' for n, c in found.items()),
            '',
        ]
    for section in re.split(r'^(?=#{2,3} mmkernel )', text, flags=re.M)[1:]:
        name = re.match(r'#+ mmkernel (.*)', section)[1]
        if name not in names:
            continue
        lines += [re.sub(r'^###', '##', section).rstrip(), '']
        if name in COMMANDS:
            lines += ['```bash', *(f'mmkernel {name} {e}'.rstrip() for e in COMMANDS[name].examples), '```', '']
    return '\n'.join(lines)


def configs():
    """Every config with its docstring: what it trains, the line that starts it, what was published or measured."""
    from mmkernel.cli.recipes import names_of_configs

    lines = [
        '# Configs', '',
        'Every file of `configs/`, by its own docstring. `mmkernel config show NAME` prints one with all that it inherits.', '',
    ]  # fmt: skip
    method = None
    for name, path in names_of_configs().items():
        if path.parent.name != method:
            method = path.parent.name
            lines += [f'## {method}', '']
        first, _, rest = ast.get_docstring(ast.parse(path.read_text())).partition('\n')
        lines += [
            f'### {name} {{ #{name.replace("/", "-").lower()} }}',
            '',
            escaped(first),
            '',
            '```text',
            rest.strip(),
            '```',
            '',
        ]
    return '\n'.join(lines)


def hooks():
    """Every hook of the package: whether it is on by default, and what it does."""
    from mmkernel.engine.config_file import read_config
    from mmkernel.registry import HOOKS

    HOOKS.import_from_location()
    runtime = read_config(ROOT / 'configs/_base_/runtime.py')
    default = {hook['type']: name for name, hook in runtime.default_hooks.items()}
    lines = [
        '# Hooks', '', 'What happens beside the steps of a run. A hook that is on by default is changed under its key, '
        '`default_hooks=dict(checkpoint=dict(interval=1))`, and turned off by `None`. Add any other under a key of your own.',
        '', '| hook | key in `default_hooks`, if it is on | what it does |', '|---|---|---|',
    ]  # fmt: skip
    for name, hook in sorted(HOOKS.module_dict.items()):
        if hook.__module__.startswith('mmkernel.'):
            first = inspect.getdoc(hook).partition('\n\n')[0].replace('\n', ' ')
            key = f'`{default[name]}`' if name in default else ''
            lines.append(f'| [{name}][{hook.__module__}.{name}] | {key} | {escaped(first)} |')
    lines += ['', "Hooks of mmengine (`LoggerHook`, `EMAHook`, `ParamSchedulerHook`, ...) work too. How to write one: "
              '[Watching a run](../monitoring.md).', '']  # fmt: skip
    shown = public_names('engine').values()
    rest = [f'{h.__module__}.{n}' for n, h in sorted(HOOKS.module_dict.items()) if h.__module__.startswith('mmkernel.')]
    lines += [f'::: {path}\n' for path in rest if path not in shown]
    return '\n'.join(lines)


def escaped(text):
    """Markdown that shows ``text`` as it stands in a cell of a table."""
    text = re.sub(r'``([^`]+)``', r'`\1`', text)
    cells = re.split(r'(`[^`]+`)', text)
    return ''.join(c.replace('|', '\\|') if c.startswith('`') else re.sub(r'([|*_<\[\]])', r'\\\1', c) for c in cells)


def public_names(room):
    """{name: path of its definition} of the classes and functions that a room offers."""
    module = import_module(f'mmkernel.{room}')
    tree = ast.parse(inspect.getsource(module))
    names = [
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    names += getattr(module, '_ON_FIRST_USE', ())
    found = {name: getattr(module, name) for name in names if hasattr(module, name)}
    return {
        name: f'{value.__module__}.{name}'
        for name, value in found.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith(f'mmkernel.{room}')
    }


def room_page(room):
    """Names that ``from mmkernel.<room> import ...`` brings, with their docstrings."""
    text = ast.get_docstring(ast.parse((ROOT / 'mmkernel' / room / '__init__.py').read_text()))
    text = re.sub(r'``([^`]+)``', r'`\1`', text)
    names = sorted(public_names(room).items(), key=lambda item: (not item[0][0].isupper(), item[0].lower()))
    parts = [f'::: {path}\n' for _, path in names]
    return f'# mmkernel.{room}\n\n{text}\n\n' + '\n'.join(parts)
