"""Weights that leave the house, and weights that come in."""

from mmkernel.zoo.detection import FRAMEWORKS, export_detection, from_framework, key_table, resnet_depth, to_framework

__all__ = ['FRAMEWORKS', 'export_detection', 'from_framework', 'key_table', 'resnet_depth', 'to_framework']
