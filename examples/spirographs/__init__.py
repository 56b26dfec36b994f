"""A novelty-seeking society that invents spirographs; run it with ``python -m``.

After S. Linkola, T. Takala and H. Toivonen, "Novelty-Seeking Multi-Agent Systems", Proceedings of
the Seventh International Conference on Computational Creativity (ICCC 2016): agents with a limited
memory criticise their own inventions, may veto those of others, and learn from what the society
has accepted. The docstring of `agent` lists what differs from the paper.

    curves    gears -> points -> a small greyscale picture
    memory    what an agent remembers, and how new a picture looks beside it
    agent     the agent: invents, criticises itself, judges others, learns
    society   the agents of all slaves: how they are spawned, connected and stepped
    report    the table, the contact sheet and the plot
"""
