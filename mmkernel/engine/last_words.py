"""What a process says from a thread or a signal handler, and how it ends there."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

erase = ''  # what clears the line of a progress bar on the terminal


def say(text: str) -> None:
    """A line to the console, without Python's buffers, whose lock the interrupted code may hold.

    The console may have gone with the launcher: then nobody hears it, and the process goes on all the same.
    """
    with suppress(OSError, AttributeError):  # AttributeError: there never was one
        os.write(sys.__stderr__.fileno(), f'{erase}{text}\n'.encode())


def end(text: str, code: int) -> NoReturn:
    """``say`` it, and end this process at once, whatever its other threads wait for."""
    say(text)
    os._exit(code)
