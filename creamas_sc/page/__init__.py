"""A page that shows a society in a browser, while it runs and from its record later.

::

    creamas-supervisor page novelty                   # a simulation in the daemon
    creamas-supervisor page results/                  # a folder of records, or of an experiment
    creamas-supervisor page                           # all simulations of the daemon
    creamas-supervisor report novelty -o report.html  # the page as one file, its data inside

The extra "page" has what this needs: ``pip install '/path/to/clone[supervisor,page]'``.

**What it shows.** How far the simulation is, with pause and resume; metrics by step, a line for
each run, and of a study the mean with a band; artifacts up to a step, the newest or the best (by
the mean of their numeric evaluations), all or one agent's, and who made one and thought what of it;
the society as a graph, or from 500 agents on as a matrix; slaves; the end of the log. Metrics of a
running simulation come from its record: without ``record=`` there are only those that the page has
seen itself. An array of pixels is a picture, as is what has ``_repr_png_``, ``_repr_svg_`` or
``_repr_html_``, text that is SVG or HTML, and bytes that are a PNG, JPEG or GIF file.

**Who may look.** The page listens at 127.0.0.1 and a free port, if nothing else is asked for. The
printed URL works once, for one browser, which it gives a cookie; for another browser start another
page, which costs little. With ``--port``, a page that is started again there knows the browser that
had entered before. From another machine type the printed ``ssh -L`` line there, then open the URL
there. With ``--host`` others can reach it, over HTTP that others can read: prefer ssh. Pages of
other sites and ports can read and change nothing, artifacts run no scripts (they are shown in
frames without an origin), and with ``--read-only`` the page itself changes nothing.

**What it costs.** The page's process is a client like any other: its end, or a bug of it, costs a
simulation nothing, and the supervisor never sees HTTP. It asks for no more than it shows, and keeps
a million artifacts in mind at most, as numbers. Agents are asked for their connections between two
steps, so that steps stay repeatable, and so rarely that steps wait for that 5 % of the time at
most; artifacts are looked at in the host, and encoded as pictures in the page's process. If the
daemon goes away the page says so, and goes on once it is back; of a simulation that has ended it
shows the record.

**Records.** Objects of artifacts are decoded by classes that their names lead to: do not show a
record that you do not trust. What has a class that this Python lacks is shown by its name.

The page's own files are in ``static``; `creamas_sc.page.app` says what it is asked over HTTP.
"""
