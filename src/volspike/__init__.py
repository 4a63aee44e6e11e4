"""volspike tells how likely a market is to be in a volatility spike within the next 60 seconds."""

__version__ = "0.1.0"
