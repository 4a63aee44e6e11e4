"""One codec per exchange protocol: frame bytes to ``Frame``, without I/O."""
