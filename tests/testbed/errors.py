# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with the test bed; caught once, in `__main__`.

BedError
├── CommandFailed    a program that the bed runs ended with an error
├── NotReady         something did not become ready in its time
├── Unsupported      this machine cannot carry the bed (not root, no cgroups, no such Go)
└── ImageRefused     the registry did not take an image
"""

from __future__ import annotations

__all__ = ["BedError", "CommandFailed", "ImageRefused", "NotReady", "Unsupported"]


class BedError(Exception):
    """Root of the tree; its text is for a person."""


class CommandFailed(BedError):
    """A program ended with an error; the text holds the last lines that it wrote."""


class NotReady(BedError):
    """Something did not become ready in its time."""


class Unsupported(BedError):
    """This machine cannot carry the bed."""


class ImageRefused(BedError):
    """The registry did not take an image."""
