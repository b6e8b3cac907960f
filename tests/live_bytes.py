"""The counter of live bytes, for the tests."""

from mmkernel.cli.live_bytes import LiveBytes as LiveBytes
