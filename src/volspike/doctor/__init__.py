"""Checks of an installation. Each check returns findings with a severity and a remedy; none changes anything."""

from volspike.doctor.examination import Examination, examine
from volspike.doctor.finding import Finding, Severity, worst_of

__all__ = ["Examination", "Finding", "Severity", "examine", "worst_of"]
