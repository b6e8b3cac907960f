"""From an encoder of the zoo to a file for another library, in one call."""

from __future__ import annotations

from pathlib import Path

from mmkernel.zoo.config_text import config_text  # mmengine's sorts keys, and operations are applied in order
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.export import Exported, export_encoder
from mmkernel.zoo.portable import Portable, portable_encoder


def portable(model: Encoder) -> Portable:
    """The encoder of ``get_model`` or ``load_encoder`` with all that an export needs; TypeError for another model."""
    if isinstance(getattr(model, 'portable', None), Portable):
        return model.portable
    cfg = getattr(model, 'cfg', None)
    if not isinstance(model, Encoder) or cfg is None:
        raise TypeError(
            f"expected an encoder of get_model(name), got {type(model).__name__}. A checkpoint: 'mmkernel export FILE --to ...'."
        )
    facts = {key: getattr(model.info, key) for key in ('name', 'license', 'source', 'note') if getattr(model.info, key)}
    return portable_encoder(cfg, model.backbone, config=config_text(cfg.to_dict()), **facts)


def export_model(model: Encoder, target: str, path: str | Path, force: bool = False) -> Exported:
    """Write an encoder of ``get_model`` or ``load_encoder`` for ``target``, one of ``mmkernel.zoo.TARGETS``.

    Gives (path, difference, how to use it). Nothing stands at ``path`` unless the target gives the same features. Errors:
    those of ``export_encoder``, and TypeError.
    """
    return export_encoder(portable(model), target, path, force)
