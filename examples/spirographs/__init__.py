"""Novelty-seeking societies that invent spirographs; run them with ``python -m``.

After S. Linkola, T. Takala and H. Toivonen, "Novelty-Seeking Multi-Agent Systems", Proceedings of
the Seventh International Conference on Computational Creativity (ICCC 2016): agents with a limited
memory criticise their own inventions, may veto those of others, and learn from what the society
has accepted. The docstring of `agent` lists what differs from the paper.

The paper found that vetoes make what a society accepts more novel, and that self-criticism saves
much of the work of judging. The plot, ``effects.png``, compares three societies of one seed: with
self-criticism and vetoes, with vetoes alone, and with neither. Its novelty is the distance to the
most similar picture that was published before, and as that falls the more there are, pictures are
compared with those of the same place among the published ones. With the default arguments and the
seeds 1 to 8:

* Vetoes do make the pictures more novel: the 52nd to 201st have a mean novelty of 0.34 to 0.36 with
  vetoes, of 0.30 to 0.31 without. With their number the difference shrinks: agents remember 100,
  so in the end they do not know most of what was published. And a society with vetoes publishes
  254 to 333 pictures in the 30 steps in which one without publishes all of its 720.
* Self-criticism saves 29 to 37 % of the opinions that are asked, 1,820 to 2,040 in place of 2,880.
  It does not change the novelty: the means of both societies with vetoes differ by 0.01 at most,
  in either direction.

One ``--seed`` gives the same pictures, byte for byte, at any number of slaves.

    curves    gears -> points -> a small greyscale picture
    memory    what an agent remembers, and how new a picture looks beside it
    agent     the agent: invents, criticises itself, judges others, learns
    society   the societies that are compared; how agents are spawned, connected and stepped
    report    the table, the contact sheet and the plot
    citizen   the agent of simulation.toml and study.toml, for creamas-supervisor create and sweep
"""
