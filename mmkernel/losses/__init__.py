"""Objectives as pure functions of tensors: nothing is drawn, remembered or changed inside."""

from mmkernel.losses.alignment import alignment, squared_distance, uniformity

__all__ = ['alignment', 'squared_distance', 'uniformity']
