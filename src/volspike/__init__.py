"""volspike estimates how likely a market is to have a volatility spike within the next 60 seconds."""

__version__ = "0.1.0"
