"""One codec per exchange protocol: frame bytes to events, without I/O."""
