"""An installation looked over: what answers, what is installed, what would be served, and what is to be done.

Each file is one look and answers with findings; ``examination`` has all of them side by side. Nothing here changes
anything, and nothing prints.
"""

from volspike.doctor.examination import Examination, examine
from volspike.doctor.finding import Finding, Severity, worst_of

__all__ = ["Examination", "Finding", "Severity", "examine", "worst_of"]
