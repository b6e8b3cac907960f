"""What a file, or a row of the zoo, may tell of how a network is built: its shape, and nothing that opens a file or an address."""

import re
from collections.abc import Mapping
from types import NoneType
from typing import Any

# Options that would load weights from outside the file.
ELSEWHERE = ('pretrained', 'checkpoint_path', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir', 'init_cfg')
# Those of a network of timm that files may set. timm and its networks have many more.
SHAPE = set(
    """type model_name small_images in_channels zero_init_residual width fixed_positions fixed_patches
    aa_layer act_layer attn_drop_rate attn_ratio avg_down base_dim base_width bottle_ratio cardinality channel_multiplier
    channels class_token conv_bias conv_mlp conv_ratio depth depth_multiplier depths dim dims distilled down_kernel_size
    drop_block_rate drop_path_rate drop_rate dynamic_img_pad dynamic_img_size embed_dim embed_dims embed_norm expand_ratio
    fc_norm final_norm fix_init fix_stem global_pool group_size groups growth_rate head_dim head_hidden_size head_init_scale
    head_norm_first hidden_sizes img_size init_values kernel_size kernel_sizes layers ls_init_value mlp_ratio mlp_ratios
    no_embed_class norm_eps norm_layer num_blocks num_features num_heads num_init_features num_reg_tokens output_stride
    pad_type patch_drop_rate patch_norm patch_size pos_drop_rate pos_embed pre_norm proj_drop_rate qk_norm qk_scale qkv_bias
    reduction reg_tokens replace_stem_pool rope_theta scale_attn_norm scale_mlp_norm se_ratio sr_ratios stem_bias stem_chs
    stem_size stem_type stem_width strict_img_size swiglu_mlp transition_compression_ratio use_abs_pos_emb use_fc_norm use_grn
    use_rel_pos_bias use_rot_pos_emb use_shared_rel_pos_bias weight_init width_mult window_ratio window_size
    zero_init_last""".split()
)


def of_this_file(options: Any) -> Any:
    """The options of a model without those of ``ELSEWHERE``, as every tensor comes from the file.

    ValueError where a network of timm, at any depth, has an option that is none of its shape.
    """
    found = without_weights(options)
    _check_networks(found)
    return found


def without_weights(options: Any) -> Any:
    """The same options, at every depth, without those that would load weights from outside the file."""
    if isinstance(options, Mapping):
        return {key: without_weights(value) for key, value in options.items() if key not in ELSEWHERE}
    if isinstance(options, (list, tuple)):
        return type(options)(without_weights(value) for value in options)
    return options


def _check_networks(options: Any) -> None:
    """ValueError where a network of timm, at any depth, has an option that is not one of its shape (``SHAPE``)."""
    if isinstance(options, Mapping) and options.get('type') == 'TIMMBackbone':
        for key, value in options.items():
            if key not in SHAPE:
                raise ValueError(f'{key!r} is not an option of the shape of a network')
            if key not in ('type', 'model_name') and not _is_plain(value):
                raise ValueError(f'{key}={str(value)[:60]!r}; expected numbers or a word')
    inside = options if isinstance(options, (list, tuple)) else ()
    for item in options.values() if isinstance(options, Mapping) else inside:
        _check_networks(item)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    word = isinstance(value, str) and re.fullmatch(r'\w{0,40}', value) is not None
    return word or isinstance(value, (int, float, NoneType))
