"""Whether a simulation repeats itself: one seed, several runs, the first difference.

**What a seed covers**, where calls go in rounds (``MultiEnvironment(..., calls="rounds", seed=1)``):

- each agent's ``rng`` and ``numpy_rng``, which depend on the seed and the agent's number alone;
- the order in which calls between agents are served and answered in a step, and so what they lead
  to; the order of results, artifacts, agents and connections: that of `Agent.number`;
- the order of sets of strings in slaves, where PYTHONHASHSEED is 0 unless it is set.

It does not cover the modules ``random`` and ``numpy.random``: each slave has generators of its own,
seeded by its place, so these repeat themselves with as many slaves alone. (To change their state
for each agent would take longer than most acts, some 50 us.) Nor times, threads, files and web
services, addresses (ports are free ones), ``hash`` and ``repr`` of objects, by which sets of them
are ordered; nor calls from outside during a step, and what the script itself draws. A step that was
not repeatable says so in ``menv.last_step``; the steps after it go on from what it has led to.

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
