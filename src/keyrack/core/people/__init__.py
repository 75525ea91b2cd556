"""Who people and programs are, what they may, and how they prove it; must know no host and no key that opens one."""
