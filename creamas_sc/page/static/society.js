"use strict";
// The society: as a graph, from 500 agents on as a matrix.

const society = (() => {
  const { byId, count, el, setText } = dom;
  const MANY = 500; // agents

  class Society {
    /** @param {(agent: string) => void} choose Called with an agent whose artifacts are asked for. */
    constructor(data, choose) {
      Object.assign(this, { data, choose, run: null, view: null, chosen: null });
      this.box = byId("society");
      this.box.replaceChildren();
      this.reading = byId("society-reading");
      this.button = byId("society-artifacts");
      this.button.onclick = () => this.chosen && this.choose(this.chosen.agent);
      this.select = byId("society-by");
      this.select.onchange = () => this.view?.colourBy?.(this.select.value);
      this.refresher = new source.Refresher(this.box, 5, () => this.#load(), (problem) => this.#say(problem));
      this.#tell(null);
    }

    close() {
      this.refresher.close();
      this.view?.close();
    }

    show({ run }) {
      this.run = run;
      this.refresher.now();
    }

    /** Make room for a graph or a matrix before it is there. */
    expect(agents) {
      const many = agents >= MANY;
      byId("society-table").hidden = many;
      for (const each of [this.select.parentElement, this.button]) each.classList.toggle("unused", many);
    }

    async #load() {
      const run = this.run;
      const found = await this.data.society(run);
      if (run !== this.run) return;
      this.found = found;
      if (!found || found.agents === 0) return;
      this.expect(found.agents);
      const kind = found.view === "matrix" ? matrix.Matrix : graph.Graph;
      if (!(this.view instanceof kind)) this.#make(kind);
      this.view.show(found);
      const strongest = found.edges?.length < found.edges_total ? `, the ${count(found.edges.length)} strongest shown` : "";
      setText(byId("society-count"), `${count(found.agents)} agents, ${count(found.edges_total)} connections${strongest}`);
      if (found.view === "graph") this.#table(found.nodes);
    }

    #make(kind) {
      this.view?.close();
      this.view = new kind((what) => this.#tell(what));
      this.view.colourBy?.(this.select.value);
      this.box.replaceChildren(...this.view.elements);
      this.#tell(null);
    }

    /** Say what is pointed at: a node, or text. */
    #tell(what) {
      const isNode = what !== null && typeof what === "object";
      this.chosen = isNode ? what : null;
      this.button.disabled = !isNode;
      const text = isNode ? describe(what) : what;
      setText(this.reading, text || (this.view instanceof matrix.Matrix ? "Point at a cell to read it." : "Point at an agent to read about it."));
    }

    #say(problem) {
      const note = byId("society-empty");
      setText(note, problem || "No agents yet.");
      note.hidden = this.found?.agents > 0;
    }

    /** The same for who cannot see the graph, or wants the first of many. */
    #table(nodes) {
      const links = new Map(this.view.nodes.map((node) => [node.agent, node.links]));
      const first = [...nodes].sort((a, b) => b.artifacts - a.artifacts).slice(0, 20);
      const rows = first.map((node) => el("tr", {},
        el("th", { scope: "row" }, node.agent), el("td", {}, graph.shortName(node.type)), el("td", {}, graph.shortName(node.slave)),
        el("td", { class: "number" }, count(node.artifacts)), el("td", { class: "number" }, count(links.get(node.agent)))));
      byId("society-rows").replaceChildren(...rows);
    }
  }

  function describe(node) {
    const parts = [`Agent ${node.agent}`, node.type && graph.shortName(node.type), node.slave && graph.shortName(node.slave),
      `${count(node.artifacts)} artifacts`, `${count(node.links)} connections`];
    return parts.filter(Boolean).join(" · ");
  }

  return { Society };
})();
