"""Configs whose text keeps the order of keys (``mmkernel.zoo.config_text``: published weights carry that text too)."""

from mmkernel.zoo.config_text import OrderedConfig, config_text, ordered

__all__ = ['OrderedConfig', 'config_text', 'ordered']
