"""The counter of live bytes, for the tests."""

from mmkernel.planning.live_bytes import LiveBytes as LiveBytes
