"""Public trade history: trades of the past, fetched from the exchange into tapes."""
