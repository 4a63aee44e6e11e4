"""Checks of an installation. Each check returns findings with a severity and a remedy; none changes anything."""
