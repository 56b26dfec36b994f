"use strict";
// A society of some hundred agents as a graph, on a canvas.

const graph = (() => {
  const { colours, el, fitCanvas, setText } = dom;
  const SLICE_MS = 6; // of each frame, for the layout
  const ROOM = 26; // around the graph, in pixels
  const NEAR = 14; // pixels from a node that is pointed at
  const NAMED = 40; // of so few agents each is labelled
  const OTHERS = "others";

  /** The picture of a society of less than 500 agents. */
  class Graph {
    /** @param {(agent: object | null) => void} tell Called with the node that is pointed at or chosen. */
    constructor(tell) {
      Object.assign(this, { tell, nodes: [], edges: [], by: "type", chosen: null, pointed: null });
      this.canvas = el("canvas", {
        tabindex: 0, role: "img",
        onpointermove: (event) => this.#point(this.#nodeAt(event.offsetX, event.offsetY)),
        onpointerleave: () => this.#point(null),
        onclick: (event) => this.#choose(this.#nodeAt(event.offsetX, event.offsetY)),
        onkeydown: (event) => this.#key(event),
      });
      this.legend = el("ul", { class: "legend" });
      this.redraw = dom.onceAFrame(() => this.draw());
      this.unwatch = dom.watchCanvas(this.canvas, this.redraw);
    }

    get elements() {
      return [this.canvas, this.legend];
    }

    close() {
      this.unwatch();
      cancelAnimationFrame(this.frame);
    }

    show({ nodes, edges }) {
      const before = { nodes: this.nodes, layout: this.layout, edges: this.edges };
      this.nodes = nodes.map((node) => ({ ...node, links: 0 }));
      this.edges = edges.map(([from, to, weight]) => ({ from, to, weight }));
      for (const { from, to } of this.edges) {
        this.nodes[from].links += 1;
        this.nodes[to].links += 1;
      }
      const label = (at) => (at === null ? null : this.#placeOf(before.nodes[at]?.agent));
      [this.chosen, this.pointed] = [label(this.chosen), label(this.pointed)];
      this.#lay(before);
      this.colourBy(this.by);
      this.canvas.setAttribute("aria-label",
        `The society as a graph of ${nodes.length} agents and ${edges.length} connections. Arrow keys go from agent to agent.`);
    }

    /** Colour the nodes by "type" or "slave". */
    colourBy(by) {
      this.by = by;
      const amounts = new Map();
      for (const node of this.nodes) amounts.set(node[by], (amounts.get(node[by]) ?? 0) + 1);
      const groups = [...amounts].sort((a, b) => b[1] - a[1] || (String(a[0]) < String(b[0]) ? -1 : 1));
      // Eight colours can be told apart: of more groups, the last colour is for all others.
      const named = groups.length > 8 ? groups.slice(0, 7) : groups;
      this.groups = new Map(named.map(([value], at) => [value, at]));
      const legend = named.map(([value, amount]) => [shortName(value), amount, value ?? ""]);
      if (groups.length > 8) legend.push([OTHERS, groups.slice(7).reduce((sum, [, amount]) => sum + amount, 0), ""]);
      this.legend.replaceChildren(...legend.map(([name, amount, title], at) =>
        el("li", { title }, el("i", { class: `category-${at + 1}` }), `${name} `, el("span", {}, dom.count(amount)))));
      this.redraw();
    }

    // ---- places

    #placeOf = (agent) => {
      const at = this.nodes.findIndex((node) => node.agent === agent);
      return at < 0 ? null : at;
    };

    /** A society that has hardly changed keeps its picture. */
    #lay(before) {
      const name = (nodes, { from, to }) => `${nodes[from].agent} ${nodes[to].agent}`;
      const places = new Map(before.nodes.map((node, at) => [node.agent, at]));
      const known = new Set(before.edges.map((edge) => name(before.nodes, edge)));
      const kept = this.edges.filter((edge) => known.has(name(this.nodes, edge))).length;
      const alike = kept >= 0.8 * Math.max(this.edges.length, before.edges.length);
      const fresh = new layout.Layout(this.nodes.length, this.edges, this.#aspect());
      if (before.layout) fresh.takeFrom(before.layout, (at) => places.get(this.nodes[at].agent));
      const same = this.nodes.length === before.nodes.length && this.nodes.every((node) => places.has(node.agent));
      this.layout = fresh;
      if (same && alike && before.layout.settled) fresh.round = Infinity;
      cancelAnimationFrame(this.frame);
      this.#settle();
    }

    /** Let the nodes come to rest, a little in each frame: the page stays responsive. */
    #settle() {
      const settled = this.layout.run(SLICE_MS);
      if (settled || !dom.reducedMotion()) this.redraw();
      if (!settled) this.frame = requestAnimationFrame(() => this.#settle());
    }

    #fit(width, height) {
      const { x, y } = this.layout;
      const bounds = (all) => all.reduce(([least, most], each) => [Math.min(least, each), Math.max(most, each)], [Infinity, -Infinity]);
      const [[left, right], [top, bottom]] = [bounds(x), bounds(y)];
      const scale = Math.min((width - 2 * ROOM) / (right - left || 1), (height - 2 * ROOM) / (bottom - top || 1), 90);
      const [midX, midY] = [(left + right) / 2, (top + bottom) / 2];
      this.spots = this.nodes.map((_, at) => [width / 2 + (x[at] - midX) * scale, height / 2 + (y[at] - midY) * scale]);
    }

    #aspect() {
      const { clientWidth: width, clientHeight: height } = this.canvas;
      return height > 0 ? Math.min(2, Math.max(0.7, width / height)) : 1;
    }

    // ---- drawing

    draw() {
      const { clientWidth: width, clientHeight: height } = this.canvas;
      if (width === 0 || !this.layout) return;
      const context = fitCanvas(this.canvas, width, height);
      const paint = colours();
      this.#fit(width, height);
      const shown = this.pointed ?? this.chosen;
      this.#drawEdges(context, paint, shown);
      this.#drawNodes(context, paint, shown);
    }

    #drawEdges(context, paint, shown) {
      const weights = this.edges.map((edge) => edge.weight);
      const heaviest = Math.max(...weights) || 1;
      const alike = Math.min(...weights) === heaviest;
      const crowd = Math.min(1, Math.sqrt(150 / (this.edges.length + 1)));
      for (let level = 0; level < 4; level += 1) {
        context.beginPath();
        for (const { from, to, weight } of this.edges) {
          const share = alike ? 0.3 : Math.max(0, weight) / heaviest;
          if (Math.min(3, Math.floor(share * 4)) === level) this.#trace(context, from, to);
        }
        context.lineWidth = 0.6 + level * 0.7;
        context.strokeStyle = paint.quiet;
        context.globalAlpha = (shown === null ? 0.3 + 0.2 * level : 0.12) * (0.35 + 0.65 * crowd);
        context.stroke();
      }
      context.globalAlpha = 1;
      if (shown === null) return;
      context.beginPath();
      for (const { from, to } of this.edges) if (from === shown || to === shown) this.#trace(context, from, to);
      context.lineWidth = 1.5;
      context.strokeStyle = paint.accent;
      context.stroke();
    }

    #trace(context, from, to) {
      context.moveTo(...this.spots[from]);
      context.lineTo(...this.spots[to]);
    }

    #drawNodes(context, paint, shown) {
      const most = this.nodes.reduce((all, node) => Math.max(all, node.artifacts), 0) || 1;
      const largest = Math.max(5, 13 - this.nodes.length / 60);
      context.font = `11px ${paint.font}`;
      context.textBaseline = "middle";
      this.nodes.forEach((node, at) => {
        const radius = 3 + (largest - 3) * Math.sqrt(node.artifacts / most);
        const [x, y] = this.spots[at];
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.fillStyle = paint.categories[this.groups.get(node[this.by]) ?? 7];
        context.fill();
        context.lineWidth = at === shown ? 2.5 : 1;
        context.strokeStyle = at === shown ? paint.text : paint.ground;
        context.stroke();
        if (this.nodes.length > NAMED && at !== shown) return;
        context.fillStyle = paint.text;
        context.fillText(node.agent, x + radius + 4, y);
      });
    }

    // ---- pointing

    #nodeAt(x, y) {
      let [found, least] = [null, NEAR];
      this.spots?.forEach(([nodeX, nodeY], at) => {
        const distance = Math.hypot(x - nodeX, y - nodeY);
        if (distance < least) [found, least] = [at, distance];
      });
      return found;
    }

    #point(at) {
      if (at === this.pointed) return;
      this.pointed = at;
      this.canvas.classList.toggle("over", at !== null);
      this.#say();
    }

    #choose(at) {
      this.chosen = at;
      this.#say();
    }

    #key(event) {
      const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (by === undefined || this.nodes.length === 0) return;
      event.preventDefault();
      const from = this.chosen ?? (by > 0 ? -1 : 0);
      this.#choose((from + by + this.nodes.length) % this.nodes.length);
    }

    #say() {
      const at = this.pointed ?? this.chosen;
      this.tell(at === null ? null : this.nodes[at]);
      this.redraw();
    }
  }

  /** "painters:Painter" is shown as "Painter". */
  function shortName(value) {
    if (value === null || value === undefined) return "unknown";
    return value.includes("://") ? value.replace("tcp://", "") : value.split(":").pop();
  }

  return { Graph, shortName };
})();
