"""Servers and the hosts behind them: what each must obey, and what it tells; must speak to no host itself."""
