"use strict";
// Where the page's data come from: the server that it watches, or, in a report, the page itself.

const source = (() => {
  const PATIENCE_MS = 15_000; // for an answer
  const SILENCE_MS = 20_000; // the stream of a society that goes on speaks every 5 s
  const AGAIN_MS = [1000, 1000, 2000, 5000];
  const DENIED =
    "This page was started again, or its cookie is gone: open the URL that the command printed.";

  /** The server answered that it cannot. */
  class Refused extends Error {
    constructor(status, message) {
      super(message);
      this.status = status;
    }
  }

  /** Fetch JSON. Throws Refused, or what `fetch` throws where there is no server. */
  async function ask(path, parameters = {}, { signal, ...options } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== null && value !== undefined && value !== "") query.set(name, value);
    }
    const url = query.size > 0 ? `${path}?${query}` : path;
    const ends = [AbortSignal.timeout(PATIENCE_MS), ...(signal ? [signal] : [])];
    const answer = await fetch(url, { ...options, signal: AbortSignal.any(ends) });
    if (answer.ok) return answer.json();
    const { error } = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, error ?? `the server answered ${answer.status}`);
  }

  const session = () => ask("api/session");

  /** A simulation, or a record, behind the server. */
  class Live {
    constructor(name, opened) {
      this.name = name;
      this.session = opened;
      this.closed = new AbortController();
      this.last = ""; // the id of the last event
      this.heard = 0; // when
      this.tries = 0;
    }

    runs = () => this.#get("runs");
    metrics = (by) => this.#get("metrics", { by });
    artifacts = (query) => this.#get("artifacts", query);
    artifact = (run, number) => this.#get(`artifacts/${number}`, { run });
    society = (run) => this.#get("society", { run });
    slaves = () => this.#get("slaves");
    log = () => this.#get("log");

    /** Pause or resume; returns the new state. */
    order(what) {
      const headers = { "X-Creamas-Token": this.session.token };
      return ask(this.#path(what), {}, { method: "POST", headers });
    }

    /**
     * Follow the events, until `close`.
     * @param {object} tell `state(state)`, `gap()`, `happened(name, details)` and
     *   `connection(problem)`, a sentence, empty if all is well.
     */
    watch(tell) {
      this.tell = tell;
      this.seen = () => (document.hidden ? this.#hangUp() : this.#open());
      document.addEventListener("visibilitychange", this.seen);
      this.watchdog = setInterval(() => this.#checkSilence(), 5000);
      if (!document.hidden) this.#open();
    }

    close() {
      this.closed.abort();
      document.removeEventListener("visibilitychange", this.seen);
      clearInterval(this.watchdog);
      this.#hangUp();
    }

    #path = (what) => `api/s/${encodeURIComponent(this.name)}/${what}`;
    #get = (what, parameters) => ask(this.#path(what), parameters, { signal: this.closed.signal });

    /** A page that nobody sees holds no connection: a browser has only six for each server. */
    #hangUp() {
      clearTimeout(this.retry);
      this.events?.close();
      this.events = null;
    }

    #open() {
      this.#hangUp();
      const since = this.last ? `?since=${encodeURIComponent(this.last)}` : "";
      const events = (this.events = new EventSource(this.#path("events") + since));
      this.heard = performance.now();
      events.onopen = () => this.#opened();
      events.onerror = () => this.#failed(events);
      for (const name of ["state", "gap", "unreachable", "slave_lost", "slave_restarted", "not_repeatable", "closing"]) {
        events.addEventListener(name, (event) => this.#hear(name, event));
      }
    }

    #opened() {
      this.heard = performance.now();
      if (this.tries > 0) session().then((opened) => (this.session = opened), () => {});
      this.tries = 0;
      this.tell.connection("");
    }

    #hear(name, event) {
      this.heard = performance.now();
      if (event.lastEventId) this.last = event.lastEventId;
      const details = JSON.parse(event.data);
      if (name === "state") {
        this.over = ["ended", "closed"].includes(details.state);
        this.tell.connection(details.reachable ? "" : details.problem);
        this.tell.state(details);
      } else if (name === "gap") this.tell.gap();
      else if (name === "unreachable") this.tell.connection(`${sentence(details.problem)} Trying again.`);
      else this.tell.happened(name, details);
    }

    /** The browser tries again by itself, with the id of the last event, unless it was refused. */
    #failed(events) {
      if (events !== this.events) return;
      const delay = AGAIN_MS[Math.min(this.tries, AGAIN_MS.length - 1)];
      this.tries += 1;
      this.tell.connection("Connection lost, trying again.");
      if (events.readyState === EventSource.CLOSED) {
        this.retry = setTimeout(() => this.#askWhy(events), delay);
      }
    }

    async #askWhy(events) {
      try {
        await ask(this.#path("state"));
      } catch (error) {
        if (events !== this.events) return;
        const problem = why(error);
        this.#failed(events);
        this.tell.connection(problem);
        return;
      }
      if (events === this.events) this.#open();
    }

    #checkSilence() {
      if (!this.events || this.over || performance.now() - this.heard < SILENCE_MS) return;
      this.tries += 1;
      this.tell.connection("The server says nothing, trying again.");
      this.#open();
    }
  }

  const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

  /** What to say about an error of `ask`. */
  function why(error) {
    if (!(error instanceof Refused)) return "Connection lost, trying again.";
    return error.status === 403 ? DENIED : sentence(error.message);
  }

  /** The data in a report. */
  class Inlined {
    constructor(data) {
      this.data = data;
      this.session = { ...data.session, made: data.made };
      this.name = data.state.name;
    }

    runs = async () => this.data.runs;
    metrics = async (by) => this.data.metrics_by?.[by] ?? this.data.metrics;
    society = async (run) => this.data.society[this.#runOf(run)] ?? null;
    slaves = async () => this.data.slaves;
    log = async () => this.data.log;
    artifact = async (run, number) => this.data.artifacts[this.#runOf(run)].find((each) => each.artifact === number);
    watch = (tell) => tell.state(this.data.state);
    close = () => {};

    #runOf = (run) => run ?? this.data.runs.runs.at(-1)?.run;

    /** As the server does it, of the artifacts that are in the report. */
    async artifacts({ run, order, upto, agent, offset, limit }) {
      const all = this.data.artifacts[this.#runOf(run)] ?? [];
      const within = all.filter((each) => upto === null || upto === undefined || each.step === null || each.step <= upto);
      const found = within.filter((each) => !agent || each.agent === agent);
      const score = (each) => each.score ?? -Infinity;
      found.sort((a, b) => (order === "best" && score(b) - score(a)) || b.artifact - a.artifact);
      const made = new Map();
      for (const each of within) made.set(each.agent, (made.get(each.agent) ?? 0) + 1);
      return {
        total: this.data.artifacts_total[this.#runOf(run)] ?? all.length, chosen: all.length, found: found.length,
        items: found.slice(offset, offset + limit),
        agents: [...made].sort((a, b) => b[1] - a[1]).slice(0, 200),
      };
    }
  }

  /** The report's data; null in a page that has a server. */
  function inlined() {
    const element = document.getElementById("creamas-data");
    return element ? new Inlined(JSON.parse(element.textContent)) : null;
  }

  /** Loads one part of the page: one load at a time, not too often, and only what is in sight. */
  class Refresher {
    /**
     * @param {Element} element The part.
     * @param {number} seconds Between two loads.
     * @param {() => Promise<void>} load Loads and shows it.
     * @param {(problem: string) => void} failed Called after each load; "" if all is well.
     */
    constructor(element, seconds, load, failed) {
      Object.assign(this, { pause: seconds * 1000, load, failed, due: false, busy: false });
      this.began = -Infinity;
      this.inSight = false;
      this.observer = new IntersectionObserver((entries) => {
        this.inSight = entries[entries.length - 1].isIntersecting;
        this.#go();
      }, { rootMargin: "300px" });
      this.observer.observe(element);
      this.shown = () => this.#go();
      document.addEventListener("visibilitychange", this.shown);
    }

    /** What is shown is no longer what there is. */
    stale() {
      this.due = true;
      this.#go();
    }

    /** Load without waiting, as the user asked for something else. */
    now() {
      this.began = -Infinity;
      this.stale();
    }

    close() {
      this.observer.disconnect();
      document.removeEventListener("visibilitychange", this.shown);
      clearTimeout(this.timer);
      this.closed = true;
    }

    #go() {
      clearTimeout(this.timer);
      if (!this.due || this.busy || this.closed || !this.inSight || document.hidden) return;
      const wait = this.began + this.pause - performance.now();
      if (wait > 0) this.timer = setTimeout(() => this.#run(), wait);
      else this.#run();
    }

    async #run() {
      if (!this.due || this.busy) return;
      [this.due, this.busy, this.began] = [false, true, performance.now()];
      try {
        await this.load();
        this.failed("");
      } catch (error) {
        // That there is no server now is said at the top of the page.
        if (error instanceof Refused && ![403, 503].includes(error.status)) this.failed(sentence(error.message));
        this.due = true;
      } finally {
        this.busy = false;
        this.#go();
      }
    }
  }

  return { Live, Inlined, Refresher, Refused, inlined, session, why };
})();
