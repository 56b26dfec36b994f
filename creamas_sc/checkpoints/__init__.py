"""Checkpoints of a recorded run: all that it takes to go on from the end of a step.

Beside ``run-1.sqlite`` there is a folder::

    run-1.checkpoints/
        step-40/
            slave-0, slave-1    what is in each slave: its environment's part, then each agent
            master              how the simulation was made, its own state, its artifacts
            manifest            sizes and SHA-256 of these files; where it is, all are whole

Each file is written under another name, then synced and renamed, and the manifest comes last: that
is the commit. Older checkpoints are removed after it.
"""
