# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person does with a running gateway from a terminal: talk to it, see it work, replay a file through it."""
