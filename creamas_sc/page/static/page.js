"use strict";
// The page: its header, and which part is told what.

const page = (() => {
  const { byId, count, duration, el, number, setText } = dom;
  const ASK_SECONDS = 5; // whether there are other simulations by now
  const NOTE_SECONDS = 10;
  const LOADING_MS = 1000; // that what is below the metrics waits for them, at most

  /** One society on the page: its data and the parts that show them. */
  class View {
    constructor(data) {
      this.data = data;
      this.key = "";
      this.dialog = new artifact.Dialog((agent) => this.#showAgent(agent));
      this.metrics = new metrics.Metrics(data);
      this.gallery = new gallery.Gallery(data, (item) => this.dialog.open(data, this.run, item));
      this.society = new society.Society(data, (agent) => this.#showAgent(agent));
      this.slaves = new tables.Slaves(data);
      this.log = new tables.Log(data);
      this.parts = [this.metrics, this.gallery, this.society, this.slaves, this.log];
      this.select = byId("run");
      this.select.onchange = () => this.#choose(this.select.value);
      byId("pause").onclick = () => this.#order("pause");
      byId("resume").onclick = () => this.#order("resume");
      data.watch({
        state: (state) => this.#state(state),
        gap: () => this.#gap(),
        happened: () => [this.slaves, this.log].forEach((part) => part.refresher.now()),
        connection: (problem) => setText(byId("connection"), problem),
      });
      this.#loadRuns();
    }

    close() {
      this.closed = true;
      this.data.close();
      for (const part of this.parts) part.close();
      for (const id of ["connection", "order-error"]) setText(byId(id), "");
    }

    // ---- what is new

    #state(state) {
      this.state = state;
      header.show(state, this.data.session);
      const live = !["ended", "closed", "unfinished"].includes(state.state);
      const key = [state.age, state.artifacts, state.last_step, state.state, state.runs].join();
      this.slaves.refresher.stale();
      this.log.refresher.stale();
      if (key === this.key) return;
      if (this.key === "") setTimeout(() => byId("main").classList.remove("loading"), LOADING_MS);
      this.slaves.expect(state.slaves);
      this.society.expect(state.agents);
      this.key = key;
      this.metrics.refresher.stale();
      this.society.refresher.stale();
      this.gallery.grow(state.last_step ?? 0, live);
      if (this.amount !== undefined && state.runs > this.amount) this.#loadRuns();
    }

    /** Something was missed. */
    #gap() {
      this.key = "";
      this.gallery.reload();
      for (const part of this.parts) part.refresher.now();
      this.#loadRuns();
    }

    async #loadRuns() {
      let found;
      try {
        found = await this.data.runs();
      } catch (error) {
        if (this.closed) return;
        setText(byId("connection"), source.why(error));
        this.amount = 0; // the next state asks again
        return;
      }
      const { runs, parameters } = found;
      this.amount = runs.length;
      this.metrics.offer(parameters);
      this.select.replaceChildren(...runs.map((run) => el("option", { value: run.run }, labelOf(run, parameters))));
      this.select.parentElement.hidden = runs.length < 2;
      const names = runs.map((run) => run.run);
      const run = names.includes(this.run) ? this.run : names[names.length - 1];
      this.select.value = run;
      this.metrics.refresher.now();
      if (this.run === undefined) this.#stay(run);
      else if (run !== undefined) this.#choose(run);
    }

    #choose(run) {
      if (run === this.run) return;
      this.run = run;
      this.gallery.show({ run });
      this.society.show({ run });
    }

    /** Stay with the last run, which the gallery shows before its name is known. */
    #stay(run) {
      this.run = run;
      this.gallery.stay(run);
      this.society.show({ run });
    }

    #showAgent(agent) {
      this.gallery.show({ agent });
      byId("gallery-title").scrollIntoView({ behavior: dom.reducedMotion() ? "auto" : "smooth" });
      byId("gallery-agent").focus({ preventScroll: true });
    }

    // ---- orders

    async #order(what) {
      const error = byId("order-error");
      setText(error, "");
      clearTimeout(this.note);
      try {
        header.disable();
        this.#state(await this.data.order(what));
      } catch (problem) {
        setText(error, `Could not ${what}: ${source.why(problem)}`);
        this.note = setTimeout(() => setText(error, ""), NOTE_SECONDS * 1000);
        header.show(this.state, this.data.session);
      }
    }
  }

  function labelOf(run, parameters) {
    const values = parameters.map((name) => `${name} = ${JSON.stringify(run.parameters?.[name])}`);
    return [run.run, ...values].join(", ");
  }

  const header = {
    show(state, session) {
      const { step, of } = state;
      setText(byId("name"), state.name);
      const made = session.made ? ` · report of ${new Date(session.made * 1000).toLocaleString("sv").slice(0, 16)}` : "";
      setText(byId("state"), stateText(state) + made);
      byId("state").dataset.state = state.state;
      setText(byId("step"), `${count(step)}${of ? ` of ${count(of)}` : ""}`);
      setText(byId("rate"), number(state.steps_per_second, 3));
      setText(byId("left"), duration(state.seconds_left));
      const failed = state.failed_acts ?? (state.state === "failed" ? 1 : null);
      setText(byId("failures"), failed === null ? "–" : count(failed));
      dom.setAttribute(byId("failures"), "data-bad", failed > 0 ? "" : null);
      byId("progress").value = of ? step / of : 0;
      setText(byId("problem"), state.error);
      byId("orders").hidden = state.kind !== "simulation" || session.read_only;
      byId("pause").disabled = !state.can_steer || state.state !== "stepping" || state.pausing;
      byId("resume").disabled = !state.can_steer || !(["paused", "failed"].includes(state.state) || state.pausing);
      document.title = `${state.name}: ${state.state}${step ? `, step ${count(step)}` : ""}`;
    },

    disable() {
      byId("pause").disabled = byId("resume").disabled = true;
    },
  };

  const plural = ([amount, one, many = `${one}s`]) => `${count(amount)} ${amount === 1 ? one : many}`;

  function stateText({ state, pausing, agents, slaves, restarts, overran, repeatable }) {
    const amounts = [[agents, "agent"], [slaves, "slave"], [restarts, "restart"], [overran, "step out of time", "steps out of time"]];
    const parts = [pausing ? "pausing" : state, ...amounts.filter(([amount]) => amount > 0).map(plural)];
    if (repeatable === false) parts.push("not repeatable");
    return parts.join(" · ");
  }

  // ---- which society

  let view = null;

  function open(name, session) {
    view?.close();
    view = new View(new source.Live(name, session));
  }

  /** Show the society that the address names, the only one, or a choice. */
  async function start() {
    let session;
    try {
      session = await source.session();
    } catch (error) {
      setText(byId("connection"), source.why(error));
      setTimeout(start, ASK_SECONDS * 1000);
      return;
    }
    setText(byId("connection"), "");
    const names = session.sources.map((each) => each.name);
    const asked = decodeURIComponent(location.hash.slice(1));
    offer(names, asked);
    if (names.length === 0) {
      setText(byId("name"), "creamas_sc");
      setText(byId("state"), "There is no simulation yet.");
      setTimeout(start, ASK_SECONDS * 1000);
      return;
    }
    const name = names.includes(asked) ? asked : names[0];
    byId("chooser").value = name;
    open(name, session);
  }

  /** There may be others by now. */
  async function look() {
    if (!view) return;
    const session = await source.session().catch(() => null); // the events tell that it is lost
    if (session) offer(session.sources.map((each) => each.name), view.data.name);
  }

  function offer(names, asked) {
    const chooser = byId("chooser");
    if (names.join("\n") === [...chooser.options].map((each) => each.value).join("\n")) return;
    chooser.hidden = names.length < 2;
    byId("name").classList.toggle("unseen", !chooser.hidden);
    chooser.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    if (names.includes(asked)) chooser.value = asked;
    chooser.onchange = () => (location.hash = encodeURIComponent(chooser.value));
  }

  function begin() {
    const report = source.inlined();
    if (report) {
      view = new View(report);
      return;
    }
    addEventListener("hashchange", start);
    addEventListener("focus", look);
    start();
  }

  begin();

  return { get view() { return view; } };
})();
