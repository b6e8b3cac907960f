"""What a project says of itself in several places is said alike: versions, Pythons, licence, citation, forms."""

import configparser
import re

import pytest
import yaml

import mmkernel


@pytest.fixture(scope='module')
def setup(repository):
    config = configparser.ConfigParser()
    config.read(repository / 'setup.cfg')
    return config


@pytest.fixture(scope='module')
def read(repository):
    return lambda name: yaml.safe_load((repository / name).read_text())


def lines(text):
    return [line for line in text.strip().splitlines() if not line.startswith('#')]


def pythons(setup):
    return re.findall(r'Python :: (3\.\d+)$', setup['metadata']['classifiers'], re.M)


def test_each_requirement_has_an_oldest_version(setup):
    """Or 'the oldest that is allowed' would be one that nobody has tried."""
    asked = lines(setup['options']['install_requires']) + lines(setup['options.extras_require']['tests'])
    assert len(asked) > 15
    assert not [line for line in asked if not re.search(r'[>=]=\d', line)]


def test_ruff_is_the_same_everywhere(setup, read):
    (ruff,) = re.findall(r'ruff==([\d.]+)', setup['options.extras_require']['tests'])
    (repo,) = read('.pre-commit-config.yaml')['repos']
    assert repo['rev'] == f'v{ruff}'
    assert [hook['id'] for hook in repo['hooks']] == ['ruff-check', 'ruff-format']


def test_the_workflow_tries_both_ends(setup, read, repository):
    jobs = read('.github/workflows/tests.yml')['jobs']
    assert jobs['tests']['strategy']['matrix']['python'] == [pythons(setup)[0], pythons(setup)[-1]]
    assert setup['options']['python_requires'] == f'>={pythons(setup)[0]}'
    scripts = [step['run'] for job in jobs.values() for step in job['steps'] if 'run' in step]
    named = re.findall(r'(?:bash|sh) (\S+\.sh)', '\n'.join(scripts))
    assert named == ['tools/run_tests.sh']
    assert (repository / named[0]).is_file()


def test_badges_say_what_setup_says(setup, repository):
    badges = dict(re.findall(r'^\[?!\[(\w+): ([^\]]+)\]', (repository / 'README.md').read_text(), re.M))
    assert badges['Python'] == f'{pythons(setup)[0]} to {pythons(setup)[-1]}'
    (torch,) = re.findall(r'^torch>=(.+)$', setup['options']['install_requires'], re.M)
    assert badges['PyTorch'] == f'{torch} or newer'
    assert badges['licence'] == setup['metadata']['license']
    assert 'Apache License' in (repository / 'LICENSE').read_text()[:200]


def test_the_changelog_keeps_its_form(repository):
    """https://keepachangelog.com: a section a version, newest first, known kinds of change."""
    text = (repository / 'CHANGELOG.md').read_text()
    versions = re.findall(r'^## \[(.+?)\]', text, re.M)
    assert mmkernel.__version__ in versions[:2]
    assert len(set(versions)) == len(versions)
    kinds = set(re.findall(r'^### (.+)$', text, re.M))
    assert kinds
    assert kinds <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}


CITED = {'authors', 'title', 'type'}
SOFTWARE = CITED | {'cff-version', 'message', 'version', 'license'}
FURTHER = {'abstract', 'keywords', 'references', 'url', 'doi', 'repository-code', 'date-released', 'preferred-citation'}
PAPER = CITED | {'year', 'collection-title', 'conference', 'url'}


def test_the_citation_file_is_one(read, setup):
    """The fields of version 1.2.0 that we use; ``cffconvert --validate`` looks at the whole schema."""
    cited = read('CITATION.cff')
    assert set(cited) >= SOFTWARE
    assert set(cited) <= SOFTWARE | FURTHER
    assert cited['cff-version'] == '1.2.0'
    assert cited['version'] == mmkernel.__version__
    assert cited['license'] == setup['metadata']['license']
    assert cited['authors'] == [{'name': setup['metadata']['author']}]
    (paper,) = [entry for entry in cited['references'] if entry['type'] == 'conference-paper']
    assert set(paper) == PAPER
    assert {key for author in paper['authors'] for key in author} == {'family-names', 'given-names'}
    assert paper['url'] in setup['metadata']['project_urls']


def test_issue_forms_are_whole(read, repository):
    folder = repository / '.github/ISSUE_TEMPLATE'
    forms = {path.stem: read(path.relative_to(repository)) for path in folder.glob('*.yml') if path.stem != 'config'}
    assert set(forms) == {'bug', 'feature', 'question'}
    for form in forms.values():
        assert form['name']
        assert form['description']
        fields = [field for field in form['body'] if field['type'] != 'markdown']
        assert len({field['id'] for field in fields}) == len(fields)
        assert all(field['attributes']['label'] for field in fields)
        assert {field['type'] for field in fields} <= {'textarea', 'input', 'dropdown', 'checkboxes'}
    needed = [
        field['attributes']['label'] for field in forms['bug']['body'] if field.get('validations', {}).get('required')
    ]
    assert 'mmkernel env --json' in needed
