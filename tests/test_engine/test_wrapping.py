"""What wrap_model and the numerics do to a model, and what they leave as it was."""

import copy

import pytest
import torch
from live_bytes import LiveBytes
from torch import nn
from torch._dynamo.testing import CompileCounter

from mmkernel.engine import PretrainOptimWrapper
from mmkernel.engine.wrapping import checkpoint_blocks, compile_encoder, wants_channels_last, wrap_model
from mmkernel.models import JointEmbedding, TIMMBackbone

NECK = dict(type='MLPNeck', dims=(16, 12))
HEAD = dict(type='KernelMMDHead', kernel=dict(type='RBFKernel', scale=2.0))


class Block(nn.Module):
    """x + relu(norm(conv(x)))"""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()


class Small(nn.Module):
    """A stem and two blocks: compiles in a second."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks, self.out_dim = nn.Conv2d(3, 8, 3), nn.Sequential(Block(), Block()), 8

    def forward(self, x):
        return self.blocks(self.stem(x)).mean((2, 3))


def model(backbone=None, **parts):
    torch.manual_seed(0)
    backbone = backbone or dict(type='TIMMBackbone', model_name='resnet18', small_images=True, channels=(8, 8, 8, 8))
    return JointEmbedding(backbone, NECK, HEAD, **parts).train()


def views(count=2, size=16):
    return list(torch.randint(0, 256, (count, 6, 3, size, size), generator=torch.Generator().manual_seed(1)).byte())


def step(net, batch):
    """The loss, after a backward pass."""
    losses = net(net.data_preprocessor(dict(inputs=batch))['inputs'])
    loss = sum(value for key, value in losses.items() if key.startswith('loss_'))
    loss.backward()
    return loss.detach()


def everything(net):
    """Gradients and buffers."""
    return {**{n: p.grad for n, p in net.named_parameters() if p.grad is not None}, **dict(net.named_buffers())}


def same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


EXACT = dict(rtol=0, atol=0)
VIT = dict(
    type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=16, patch_size=8, depth=2, embed_dim=12,
    proj_drop_rate=0.2, drop_path_rate=0.2,
)  # fmt: skip


@pytest.mark.parametrize('backbone, norm_momentum', [(None, 0.1), (None, None), (VIT, 0.1)])
def test_a_checkpointed_step_has_the_same_bits_and_keeps_less(backbone, norm_momentum):
    results, kept = [], []
    for asked in (False, True):
        net = model(backbone)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum
        names = list(net.state_dict())
        net = wrap_model(net, dict(activation_checkpointing=asked), distributed=False)
        assert list(net.state_dict()) == names
        torch.manual_seed(2)
        with LiveBytes() as live:
            losses = net(net.data_preprocessor(dict(inputs=views()))['inputs'])
        kept.append(live.now)
        del losses
        net.zero_grad()
        torch.manual_seed(3)
        results.append((step(net, views()), everything(net)))
    assert torch.equal(results[0][0], results[1][0])
    same(results[0][1], results[1][1], **EXACT)
    assert kept[1] < 0.8 * kept[0]  # the stem stays


def test_a_copy_of_a_checkpointed_backbone_computes_with_its_own_weights():
    backbone = TIMMBackbone('resnet18', small_images=True, channels=(8, 8, 8, 8))
    checkpoint_blocks(backbone)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert backbone(torch.randn(2, 3, 8, 8)).abs().sum() > 0
    twin(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is None for p in backbone.parameters())


def test_blocks_that_are_not_there_are_named():
    with pytest.raises(ValueError, match='finds no blocks in Sequential'):
        checkpoint_blocks(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))


@pytest.mark.parametrize('key', ['activation_checkpointing', 'compile'])
def test_a_model_without_backbone_is_named(key):
    with pytest.raises(ValueError, match=f'{key} = True works on model.backbone, which Linear lacks'):
        wrap_model(nn.Linear(2, 2), {key: True}, distributed=False)


def test_a_compiled_encoder_takes_the_same_step():
    torch.manual_seed(0)
    backbone = Small()
    plain, compiled = (
        model(copy.deepcopy(backbone), target=dict(type='MomentumTarget'), target_views=(0, 1)) for _ in range(2)
    )
    counter = CompileCounter()
    compiled = wrap_model(compiled, dict(compile=dict(backend=counter)), distributed=False)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    batch = views(2, 16) + views(1, 8)  # two sizes
    assert torch.equal(step(plain, batch), step(compiled, batch))
    same(everything(plain), everything(compiled))
    assert counter.frame_count >= 4  # backbone and neck, online and target
    count = counter.frame_count
    step(compiled, batch)
    assert counter.frame_count == count
    images = views(1)[0]
    torch.testing.assert_close(compiled.extract(images, 'neck'), plain.extract(images, 'neck'), rtol=1, atol=1)
    assert compiled.training
    assert compiled.backbone.training
    assert list(copy.deepcopy(compiled).state_dict()) == list(plain.state_dict())


@pytest.mark.slow
def test_inductor_takes_the_same_step():
    torch.manual_seed(0)
    backbone = Small()
    plain, compiled = (model(copy.deepcopy(backbone)) for _ in range(2))
    compile_encoder(compiled)
    torch.testing.assert_close(step(plain, views()), step(compiled, views()))
    same(everything(plain), everything(compiled), rtol=1e-3, atol=1e-4)


def test_channels_last_changes_strides_alone():
    plain, last = model().double(), wrap_model(model().double(), dict(channels_last=True), distributed=False)
    images = last.data_preprocessor(dict(inputs=views()))['inputs']
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in images)
    assert last.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(step(plain, views()), step(last, views()))
    same(everything(plain), everything(last))
    last.load_state_dict(plain.state_dict())
    assert last.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_channels_last_by_itself_is_where_convolutions_run_on_cuda():
    convolutions, cuda, cpu = model(), torch.device('cuda'), torch.device('cpu')
    asked = [wants_channels_last('auto', convolutions, device) for device in (cuda, cpu)]
    assert asked == [True, False]
    assert not wants_channels_last('auto', nn.Linear(3, 4), cuda)
    assert wants_channels_last(True, convolutions, cpu)
    assert not wants_channels_last(False, convolutions, cuda)


def test_momentum_from_a_file_gets_the_strides_of_its_parameter():
    weights = [
        nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=f)) for f in (torch.preserve_format, torch.channels_last)
    ]
    optimizers = [torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in weights]
    weights[0].grad = torch.randn(4, 3, 2, 2)
    optimizers[0].step()
    PretrainOptimWrapper(optimizers[1]).load_state_dict(optimizers[0].state_dict())
    before, after = (o.state[p]['momentum_buffer'] for o, p in zip(optimizers, weights, strict=True))
    assert after.stride() == weights[1].stride() != before.stride()
    assert torch.equal(after, before)
