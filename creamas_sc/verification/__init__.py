"""Whether a simulation repeats itself: one seed, several runs, the first difference.

**What a seed covers**, at any number of slaves, where agents' calls go in rounds:

- each agent's ``rng`` and ``numpy_rng``, which depend on the seed and the agent's number alone;
- the order in which calls are served and answered in a step, and so what they lead to; the order of
  results, artifacts, agents and connections, which is that of `Agent.number`;
- the order of sets of strings in slaves, where PYTHONHASHSEED is 0 unless it is set.

It does not cover what is drawn from the modules ``random`` and ``numpy.random``: each slave has
generators of its own, which repeat themselves only with the same number of slaves. (To give each
agent its own would cost some 50 us for each act and call, many times what these take.) Nor does it
cover times, threads, files and web services; addresses, if ports are free ones; sets of objects,
which are ordered by their place in memory; calls from outside during a step; and what the script
itself draws. `menv.last_step` says if a step was not repeatable; the steps after it go on from what
it led to.

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
