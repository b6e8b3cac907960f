"""Every metafile says what the format asks for, every row builds its model, every layout of a file meets its names."""

import json
import re

import pytest
import torch
import yaml

from mmkernel.registry import MODELS
from mmkernel.zoo import KeyMapError, MetafileError, UnknownModelError, config_of, key_maps, list_models, model_info
from mmkernel.zoo.catalogue import catalogue, root
from mmkernel.zoo.metafile import read_metafile

BUILT: dict[str, dict] = {}


def rows():
    return list(catalogue(root()).values())


def backbone_keys(info):
    """(names, shapes) of the row's backbone; equal configs are built once, without memory."""
    part = config_of(info).model.backbone
    text = json.dumps(part, sort_keys=True)
    if text not in BUILT:
        with torch.device('meta'):
            BUILT[text] = {f'backbone.{k}': v.shape for k, v in MODELS.build(part).state_dict().items()}
    return BUILT[text]


def test_every_method_has_a_metafile_and_every_config_a_row(repository):
    listed = {info.config for info in rows()}
    folders = {path.parent.name for path in repository.glob('configs/*/metafile.yml')}
    methods = {path.name for path in repository.glob('configs/[!_]*') if path.is_dir()}
    assert methods - {'benchmarks', 'detection', 'segmentation'} <= folders
    missing = [
        str(path.relative_to(repository))
        for folder in sorted(folders)
        for path in sorted(repository.glob(f'configs/{folder}/*.py'))
        if str(path.relative_to(repository)) not in listed
    ]
    assert not missing, f'add a row for {missing} to the metafile of the folder'


@pytest.mark.parametrize('folder', sorted({info.collection for info in rows()}))
def test_every_row_builds(folder):
    for info in rows():
        if info.collection == folder and info.config:
            assert len(backbone_keys(info)) > 10, info.name


def test_a_config_and_its_row_publish_one_figure(repository):
    """Or the row says why not; a row with options is another run."""
    compared = 0
    for info in rows():
        told = info.config and re.search(r'Published: ([\d.]+) %', (repository / info.config).read_text())
        if told and not info.config_options and not info.note:
            figures = [round(value, 1) for result in info.published for value in result['Metrics'].values()]
            assert float(told[1]) in figures, f'{info.name}: {told[0]} in {info.config}, {figures} in its row'
            compared += 1
    assert compared > 40


def official(layout, keys):
    """Names in the published layout, and names that come along."""
    bare = [key.removeprefix('backbone.') for key in keys]
    if layout == 'mmselfsup_vit':
        words = [
            (r'^blocks\.', 'layers.'),
            (r'\.norm([12])\.', r'.ln\1.'),
            (r'^norm\.', 'ln1.'),
            ('mlp.fc1', 'ffn.layers.0.0'),
        ]
        words += [('mlp.fc2', 'ffn.layers.1'), (r'patch_embed\.proj', 'patch_embed.projection')]
        for ours, theirs in words:
            bare = [re.sub(ours, theirs, key) for key in bare]
    prefix, more = {
        'mmkernel': ('backbone.', []),
        'bare_resnet': ('', ['fc.weight']),
        'ddp_backbone_projector': ('module.backbone.', ['module.projector.0.weight', 'module.bn.running_mean']),
        'module_prototypes': ('module.', ['module.projection_head.0.weight', 'module.prototypes.prototypes0.weight']),
        'module_encoder_q': ('module.encoder_q.', ['module.encoder_q.fc.weight', 'module.encoder_k.fc.weight', 'module.queue']),
        'module_encoder': ('module.encoder.', ['module.encoder.fc.0.weight', 'module.predictor.0.weight']),
        'mmselfsup_resnet': ('backbone.', ['neck.fc0.weight', 'head.predictor.fc0.weight', 'target_net.0.conv1.weight']),
        'mmselfsup_vit': ('backbone.', ['neck.fc0.weight', 'momentum_encoder.module.0.cls_token', 'head.predictor.fc0.weight']),
    }[layout]  # fmt: skip
    return [prefix + key for key in bare], more


FILES = [(info, file) for info in rows() for file in info.files if file.key_map and file.stage in ('backbone', 'model')]


@pytest.mark.parametrize('layout', sorted({file.key_map for _, file in FILES}))
def test_files_of_a_layout_fill_the_encoder_and_nothing_is_left(layout):
    layouts = key_maps()[layout]
    for info, file in FILES:
        if file.key_map != layout:
            continue
        ours = list(backbone_keys(info))
        theirs, more = official(layout, ours)
        state = dict(zip(theirs, ours, strict=True)) | dict.fromkeys(more, 'more')
        content = {layouts.inside[0]: state, 'epoch': 1} if layouts.inside else state
        found = layouts.apply(content)
        extra = {key for key, value in found.items() if value == 'more'}
        assert {key: value for key, value in found.items() if value != 'more'} == {key: key for key in ours}
        assert all(key.startswith('neck.') for key in extra)
        assert not extra or file.stage == 'model'


def test_a_whole_model_of_the_official_layout(repository):
    """Projector names and shapes of the authors' code: Linear, BN, ReLU twice, Linear without bias."""
    with torch.device('meta'):
        cfg = config_of(model_info('sfrik_r50_L3_q32768_200e'))
        neck = MODELS.build({**cfg.model.neck, 'in_dim': 2048})
    assert {k: tuple(v.shape) for k, v in neck.state_dict().items() if v.ndim == 2} == {
        '0.weight': (8192, 2048), '3.weight': (8192, 8192), '6.weight': (32768, 8192)
    }  # fmt: skip
    assert set(key_maps()['ddp_backbone_projector'].apply({'module.projector.6.weight': 0})) == {'neck.6.weight'}
    assert '6.bias' not in neck.state_dict()


def test_names_that_no_rule_knows_are_an_error():
    layout = key_maps()['bare_resnet']
    with pytest.raises(KeyMapError, match=r"weights.pth is not of the layout 'bare_resnet': no rule for blocks.0.w"):
        layout.apply({'conv1.weight': 0, 'blocks.0.w': 0}, 'weights.pth')
    with pytest.raises(KeyMapError, match='it holds no tensor of the model'):
        layout.apply({'fc.weight': 0})


def test_every_file_names_a_layout_that_exists():
    for info in rows():
        for file in info.files:
            assert file.key_map is None or file.key_map in key_maps(), f'{info.name}: {file.key_map}'
            assert file.key_map or file.stage not in ('backbone', 'model'), f'{info.name}: {file.name}'


def test_no_two_files_share_a_place():
    for info in rows():
        names = [part.name for file in info.files for part in (file, *file.parts)]
        assert len(names) == len(set(names)), info.name


def test_names(monkeypatch):
    assert model_info('sfrik_r50_L3_q32768_200e').files[0].urls[0].endswith('sfrik_32k_in1000_200ep_r50_backbone.pth')
    assert 'sfrik_digits_L3' in list_models('*DIGITS*')
    assert set(list_models(pretrained=True)) < set(list_models())
    with pytest.raises(UnknownModelError, match="Did you mean 'sfrik_digits_L3") as error:
        model_info('sfrik_digits_l4')
    assert str(error.value).startswith('the zoo has no model')
    with pytest.raises(UnknownModelError, match='mmkernel zoo list'):
        model_info('qqq')
    with pytest.raises(ValueError, match='listed for its files only'):
        config_of(model_info('deepcluster_r50_sobel_200e_mmselfsup'))


GOOD = yaml.safe_load("""
Collections: [{Name: C}]
Models:
  - Name: a_b
    In Collection: C
    Config: configs/a/b.py
    Results: [{Task: T, Dataset: D, Metrics: {Top 1 Accuracy: 1.0}, Source: S}]
    Weights: https://example.org/a.pth
    Files: [{Name: a.pth, Stage: backbone, URLs: ['https://example.org/a.pth'], SHA256: 'abcdef01', Size: 3, KeyMap: bare_resnet}]
    Source: S
    License: L
    Status: link not checked
""")


@pytest.mark.parametrize('place, value, said', [
    ('Name', 'A b', 'snake case'), ('In Collection', 'X', 'one of C'), ('Metric', 1, "unknown key 'Metric'"),
    ('Source', None, 'weights have a Source'), ('Weights', None, 'first URL of the first'),
    ('Results', [{'Task': 'T'}], "missing key 'Dataset', 'Metrics', 'Source'"), ('Files.Stage', 'all', 'Stage is one of'),
    ('Files.URLs', ['http://example.org/a.pth'], 'expected an https URL'), ('Files.URLs', [], 'URLs .* or Parts'),
    ('Files.URLs', ['package:../x'], 'expected an https'), ('Files.Name', '../a.pth', 'Name is that of a file'),
    ('Files.SHA256', 12345678, 'in quotes'), ('Files.SHA256', 'xyz', 'first 8 to 64 hex digits'),
    ('Files.Size', '3', 'number of bytes'),
    ('Files.Unpack', 'zip', 'Unpack is tar.gz or null'), ('Files', 'x', 'expected a mapping'),
])  # fmt: skip
def test_what_a_metafile_may_not_say(tmp_path, place, value, said):
    content = yaml.safe_load(yaml.safe_dump(GOOD))
    path = tmp_path / 'metafile.yml'
    path.write_text(yaml.safe_dump(content))
    assert read_metafile(path)[0][0].file('backbone').sha256 == 'abcdef01'
    node, key = content['Models'][0], place.split('.')[-1]
    node = node['Files'][0] if '.' in place else node
    node[key] = value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(MetafileError, match=said):
        read_metafile(path)


@pytest.mark.parametrize('method', ['sfrik', 'swav', 'deepcluster'])
def test_earlier_metafiles_call_the_stage_holds(repository, tmp_path, method):
    path = repository / 'configs' / method / 'metafile.yml'
    (tmp_path / 'metafile.yml').write_text(re.sub(r'^( +)Stage:', r'\1Holds:', path.read_text(), flags=re.M))
    assert 'Holds: backbone' in (tmp_path / 'metafile.yml').read_text()
    assert read_metafile(tmp_path / 'metafile.yml') == read_metafile(path)


def test_the_example_of_the_documentation(repository, tmp_path):
    (example,) = re.findall(r'```yaml\n(.*?)```', (repository / 'docs/model_zoo.md').read_text(), re.S)
    path = tmp_path / 'metafile.yml'
    path.write_text('Collections: [{Name: Some Method}]\n' + example)
    (info,) = read_metafile(path)[0]
    assert info.config_options == {'train_cfg.max_epochs': 200}


def test_text_that_is_no_yaml(tmp_path):
    path = tmp_path / 'metafile.yml'
    path.write_text('Models: [')
    with pytest.raises(MetafileError, match='is not YAML'):
        read_metafile(path)
