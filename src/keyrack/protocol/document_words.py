"""Words of the host document for modules that read no document; must import nothing."""

from __future__ import annotations

NAMESPACE = "keyrack-host-document"  # of the signature, so that it proves nothing in another place
PRINCIPAL = "keyrack"  # the one signer in the agent's allowed_signers

OBSERVE, ENFORCE = "observe", "enforce"
KEEP_ALL, DROP_TEMPORARY, DROP_ALL = "keep", "drop-temporary", "drop-all"
