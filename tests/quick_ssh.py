"""What lets ssh begin a connection at a tenth of its price; holds no assertion.

The key exchange that it prefers, safe from quantum computers, takes 80 ms of processor time, and tests begin thousands.
Every sshd that is tried knows this one, and what Keyrack does begins after it.
"""

KEX = "KexAlgorithms=curve25519-sha256"
