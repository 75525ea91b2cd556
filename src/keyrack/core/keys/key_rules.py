"""The rules that keys of a workspace must meet: the service's and its own stricter ones; must change none."""

from __future__ import annotations

from dataclasses import replace

from keyrack.core.instance import Instance
from keyrack.errors import Kind, Refusal
from keyrack.policy import KeyRules
from keyrack.store.keys.key_policy import KeyPolicyRow


def of_workspace(instance: Instance, workspace_id: int | None) -> KeyRules:
    """The rules for a new key; workspace_id None: the service's alone.

    Raises Refusal FORBIDDEN where the workspace's policy was changed in the database, not by Keyrack: nobody knows then
    what was set, and no key is accepted until it is set anew.
    """
    if workspace_id is None:
        return instance.key_rules
    held = instance.key_policies.of(instance.database, workspace_id, joined=instance.joined)
    if held is not None and not held.holds:
        words = (
            "What this workspace accepts as a key was changed in the database, not by Keyrack. No key is taken until "
            "an admin sets the policy of keys anew."
        )
        raise Refusal(Kind.FORBIDDEN, "key-policy-damaged", words)
    return stricter(instance.key_rules, held)


def of_registered_keys(instance: Instance, workspace_id: int) -> KeyRules:
    """The rules to judge registered keys by: as of_workspace, but without a policy that is damaged, as nothing is
    refused by them.
    """
    held = instance.key_policies.of(instance.database, workspace_id, joined=instance.joined)
    return stricter(instance.key_rules, held if held is not None and held.holds else None)


def stricter(rules: KeyRules, policy: KeyPolicyRow | None) -> KeyRules:
    """The rules of the service and of a workspace together, of each term the stricter one."""
    if policy is None:
        return rules
    types = rules.types.intersection(policy.key_types) if policy.key_types else rules.types
    return replace(rules, types=types, rsa_minimum_bits=max(rules.rsa_minimum_bits, policy.rsa_minimum_bits or 0))
