"use strict";
// The slaves, and the log.

const tables = (() => {
  const { byId, bytes, clock, count, duration, el, isNumber, setText } = dom;

  class Slaves {
    constructor(data) {
      this.data = data;
      this.table = byId("slaves");
      this.rows = new Map();
      this.body = this.table.tBodies[0];
      this.body.replaceChildren();
      this.refresher = new source.Refresher(this.table.parentElement, 2, () => this.#load(), (problem) => this.#say(problem));
    }

    close() {
      this.refresher.close();
    }

    /** Make room for the slaves before they are there. */
    expect(amount) {
      this.table.parentElement.style.minHeight = `${2.125 * (1 + (amount || 1))}rem`;
    }

    async #load() {
      const { slaves } = await this.data.slaves();
      const slowest = slaves.reduce((most, each) => Math.max(most, each.step_seconds ?? 0), 0);
      const rows = slaves.map((slave) => this.#row(slave, slowest));
      this.rows = new Map(slaves.map((slave, at) => [slave.address, rows[at]]));
      if (rows.length !== this.body.rows.length || rows.some((row, at) => row !== this.body.rows[at])) this.body.replaceChildren(...rows);
    }

    #row(slave, slowest) {
      const row = this.rows.get(slave.address) ?? emptyRow();
      const [name, step, cpu, memory, agents, restarts, state] = row.cells;
      setText(name, slave.address.replace("tcp://", ""));
      setText(state, slave.state);
      row.dataset.state = slave.state;
      setText(agents, count(slave.agents));
      setText(cpu, isNumber(slave.cpu_percent) ? `${Math.round(slave.cpu_percent)} %` : "–");
      setText(memory, bytes(slave.memory_bytes));
      const [bar, seconds] = step.children;
      // How long it took beside the slowest one, which all others wait for.
      bar.style.width = `${slowest > 0 && isNumber(slave.step_seconds) ? Math.max(2, (slave.step_seconds / slowest) * 64) : 0}px`;
      setText(seconds, duration(slave.step_seconds));
      setText(restarts, count(slave.restarts));
      return row;
    }

    #say(problem) {
      setText(byId("slaves-empty"), problem || "There are no slaves.");
      byId("slaves-empty").hidden = this.body.rows.length > 0;
      this.table.hidden = this.body.rows.length === 0;
    }
  }

  function emptyRow() {
    const cell = (...children) => el("td", { class: "number" }, ...children);
    const took = el("td", { class: "number took" }, el("i"), el("span"));
    return el("tr", {}, el("th", { scope: "row" }), took, cell(), cell(), cell(), cell(), el("td"));
  }

  class Log {
    constructor(data) {
      this.data = data;
      this.shown = "";
      fill(byId("log-errors"), []);
      fill(byId("log-lines"), []);
      this.refresher = new source.Refresher(byId("log"), 2, () => this.#load(), (problem) => this.#say(problem));
    }

    close() {
      this.refresher.close();
    }

    async #load() {
      const found = await this.data.log();
      const now = JSON.stringify(found);
      this.amount = found.errors.length + found.lines.length;
      if (now === this.shown) return;
      this.shown = now;
      fill(byId("log-errors"), found.errors);
      fill(byId("log-lines"), [...found.lines].reverse());
      byId("log-errors").parentElement.hidden = found.errors.length === 0;
      setText(byId("log-path"), found.path ?? "");
    }

    #say(problem) {
      setText(byId("log-empty"), problem || "Nothing is logged.");
      byId("log-empty").hidden = this.amount > 0;
    }
  }

  /** Show entries; those that were opened stay open. */
  function fill(list, entries) {
    const opened = new Set([...list.querySelectorAll("details[open]")].map((each) => each.dataset.key));
    list.replaceChildren(...entries.map((entry) => entryOf(entry, opened)));
  }

  function entryOf({ when, level, text, more, values }, opened) {
    const line = [el("time", {}, clock(when)), el("span", { class: "level" }, level), el("span", { class: "said" }, text, " ", el("span", { class: "values" }, values || ""))];
    if (!more) return el("li", { "data-level": level }, el("div", { class: "entry" }, ...line));
    const key = `${when} ${text}`;
    return el("li", { "data-level": level },
      el("details", { "data-key": key, open: opened.has(key) }, el("summary", { class: "entry" }, ...line), el("pre", {}, more)));
  }

  return { Slaves, Log };
})();
