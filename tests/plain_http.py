"""HTTP without TLS for tests: httpx2 would read all authorities that the system trusts each time; checks nothing."""

from __future__ import annotations

import ssl
from functools import partial

import httpx2

# It trusts nobody. Reading the authorities that a system trusts takes 35 ms, and nothing here speaks TLS.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx2.get, verify=PLAIN)
post = partial(httpx2.post, verify=PLAIN)
