"""Whether a simulation repeats itself: one seed, several runs, the first difference.

runs         the runs, side by side, and `verify`
snapshots    what is compared of two runs after each step
differences  where two values differ
causes       what makes them differ, as far as there is evidence
outcome      what `verify` returns
"""

from creamas_sc.runtime.installation import explain_import

try:
    from creamas_sc.verification.outcome import Change, Difference, Verification
    from creamas_sc.verification.runs import verify
except ModuleNotFoundError as error:
    raise explain_import(error) from None

__all__ = ["Change", "Difference", "Verification", "verify"]
