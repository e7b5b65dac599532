# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""A client for the API server of a Kubernetes cluster, from what a kubeconfig says.

The module talks to the API server itself, rather than letting a role carry keys between it and the cluster, because
then each step of a rotation is one conditional write: a run that is killed has written a key or it has not, and no key
is ever in a file, a fact or a result on its way.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Mapping
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client

TRIES = 5


def connect(options: Mapping[str, Any], *, timeout: float, folder: str, tries: int = TRIES) -> Client:
    """Return a client for the API server that makes a call up to ``tries`` times where that is safe.

    ``options`` are the module's suboptions: ``host``, ``api_key`` (a bearer token), and ``ca_cert``, ``client_cert`` and
    ``client_key`` as PEM texts. ``folder`` is private to the module's run. Raises :class:`InvalidInput`.
    """
    token = options["api_key"] or ""
    client = Client(
        options["host"],
        headers={"Authorization": f"Bearer {token}"} if token else {},
        secrets=[token] if token else [],
        timeout=timeout,
        backoff=Backoff(tries=tries, cap=5.0),
        context=_context(options, folder),
    )
    if token and client.base_url.startswith("http://"):
        raise InvalidInput("kubernetes.host: a token is sent over https only")
    return client


def _context(options: Mapping[str, Any], folder: str) -> ssl.SSLContext | None:
    if not options["host"].startswith("https://"):
        return None
    try:
        context = ssl.create_default_context(cadata=options["ca_cert"] or None)
        if not options["validate_certs"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options["client_cert"]:
            _present(context, options["client_cert"], options["client_key"], folder)
    except (ssl.SSLError, ValueError) as error:
        # What OpenSSL says names the file, which is ours and gone, and never what is in it.
        raise InvalidInput(f"kubernetes: ca_cert, client_cert or client_key is not PEM that belongs together: {error}") from None
    return context


def _present(context: ssl.SSLContext, certificate: str, key: str | None, folder: str) -> None:
    """Give the context a client certificate; OpenSSL reads it from a file only, which lives as long as the reading."""
    descriptor, path = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(certificate.rstrip("\n") + "\n" + (key or ""))
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
