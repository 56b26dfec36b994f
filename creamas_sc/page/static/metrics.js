"use strict";
// The metrics: a chart each, with one line a run, or with means over the runs of a study.

const metrics = (() => {
  const { byId, el, setText } = dom;
  const UNITS = { seconds: "s" };
  const NOTES = { seconds: "of each step", acts: "in each step", errors: "failed acts in each step", artifacts: "published in each step", acts_per_second: "of all agents" };
  const EACH = ""; // not grouped by a parameter

  class Metrics {
    constructor(data) {
      this.data = data;
      this.charts = new Map();
      this.by = EACH;
      this.box = byId("metrics");
      this.select = byId("metrics-by");
      this.box.replaceChildren();
      this.refresher = new source.Refresher(this.box, 2, () => this.#load(), (problem) => this.#say(problem));
      this.select.onchange = () => {
        this.by = this.select.value;
        this.refresher.now();
      };
    }

    /** Which parameters differ between the runs. @param {string[]} names */
    offer(names) {
      const each = el("option", { value: EACH }, "each run");
      this.select.replaceChildren(each, ...names.map((name) => el("option", { value: name }, `mean by ${name}`)));
      if (!names.includes(this.by)) this.by = names[0] ?? EACH;
      this.select.value = this.by;
      this.select.parentElement.hidden = names.length === 0;
    }

    close() {
      this.refresher.close();
      for (const each of this.charts.values()) each.close();
    }

    async #load() {
      const by = this.by;
      const found = await this.data.metrics(by);
      if (by !== this.by) return;
      this.#keepOnly(found.names);
      for (const name of found.names) {
        const lines = found.series[name].map((line) => lineOf(line, found.series[name].length));
        this.#chart(name, found.kinds[name]).show(lines, found.lines_total?.[name]);
      }
    }

    #keepOnly(names) {
      for (const [name, each] of this.charts) {
        if (names.includes(name)) continue;
        each.close();
        this.charts.delete(name);
      }
    }

    #chart(name, kind) {
      let made = this.charts.get(name);
      if (!made) {
        const own = kind === "steps"; // a user's metric may have the same name
        const note = kind === "agents' mean" ? "mean of the agents" : own ? NOTES[name] : "";
        made = new chart.LineChart(name, own ? UNITS[name] : "", note);
        this.charts.set(name, made);
        this.box.append(made.element);
      }
      return made;
    }

    #say(problem) {
      byId("main").classList.remove("loading");
      setText(byId("metrics-empty"), problem || "No metrics yet.");
      byId("metrics-empty").hidden = this.charts.size > 0;
    }
  }

  function lineOf({ label, steps, values, low, high }, of) {
    const band = low?.length === steps.length ? { low, high } : {};
    return { name: of > 1 || label.includes("=") ? label : "", steps, values, ...band };
  }

  return { Metrics };
})();
