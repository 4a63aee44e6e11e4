"""Public trade history of an exchange, downloaded into tapes."""
