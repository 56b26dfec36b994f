"use strict";
// A society of many agents as an adjacency matrix, on a canvas: who is connected to whom.

const matrix = (() => {
  const { colours, count, el, fitCanvas, number } = dom;
  const MARGIN = { left: 52, top: 24, right: 58, bottom: 8 };
  const BARS = 44; // wide, right of the matrix: artifacts

  class Matrix {
    /** @param {(text: string) => void} tell Called with what is at the pointer. */
    constructor(tell) {
      Object.assign(this, { tell, data: null, cell: null });
      this.canvas = el("canvas", {
        tabindex: 0, role: "img", class: "square",
        onpointermove: (event) => this.#point(this.#cellAt(event.offsetX, event.offsetY)),
        onpointerleave: () => this.#point(null),
        onblur: () => this.#point(null),
        onkeydown: (event) => this.#key(event),
      });
      this.legend = el("div", { class: "ramp" }, el("span", {}, "0"), el("i"), this.most = el("span"), el("span", {}, "sum of weights"));
      this.redraw = dom.onceAFrame(() => this.draw());
      this.unwatch = dom.watchCanvas(this.canvas, this.redraw);
    }

    get elements() {
      return [this.canvas, this.legend];
    }

    close() {
      this.unwatch();
    }

    show(data) {
      this.data = data;
      this.heaviest = data.cells.reduce((most, each) => Math.max(most, each), 0);
      this.most.textContent = number(this.heaviest, 3);
      this.canvas.setAttribute("aria-label",
        `The society as a matrix of ${data.bins.length} by ${data.bins.length} groups of agents, ` +
        `${count(data.agents)} agents and ${count(data.edges_total)} connections. Arrow keys go from cell to cell.`);
      this.redraw();
    }

    draw() {
      const { clientWidth: width, clientHeight: height } = this.canvas;
      if (width === 0 || !this.data) return;
      const context = fitCanvas(this.canvas, width, height);
      const paint = colours();
      const side = Math.min(width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom);
      this.side = side;
      this.#drawCells(context, paint, side);
      this.#drawLabels(context, paint, side);
      this.#drawBars(context, paint, side);
      if (this.cell) this.#drawPointer(context, paint, side);
    }

    /** A pixel a cell, enlarged. */
    #drawCells(context, paint, side) {
      const { bins, cells } = this.data;
      const small = new OffscreenCanvas(bins.length, bins.length);
      const brush = small.getContext("2d");
      const image = brush.createImageData(bins.length, bins.length);
      const [red, green, blue] = rgbOf(brush, paint.accent);
      cells.forEach((weight, at) => {
        const strength = weight > 0 ? 0.12 + 0.88 * Math.sqrt(weight / this.heaviest) : 0;
        image.data.set([red, green, blue, Math.round(255 * strength)], at * 4);
      });
      brush.putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, MARGIN.left, MARGIN.top, side, side);
      context.strokeStyle = paint.line;
      context.lineWidth = 1;
      context.strokeRect(MARGIN.left - 0.5, MARGIN.top - 0.5, side + 1, side + 1);
    }

    #drawLabels(context, paint, side) {
      const { bins } = this.data;
      const size = side / bins.length;
      const every = Math.ceil(48 / size);
      context.font = `11px ${paint.font}`;
      context.fillStyle = paint.quiet;
      for (let at = 0; at < bins.length; at += every) {
        context.textAlign = "right";
        context.textBaseline = "top";
        context.fillText(bins[at][0], MARGIN.left - 6, MARGIN.top + at * size, MARGIN.left - 8);
        context.textAlign = "left";
        context.textBaseline = "bottom";
        context.fillText(bins[at][0], MARGIN.left + at * size, MARGIN.top - 4, every * size - 4);
      }
    }

    #drawBars(context, paint, side) {
      const { bins, artifacts } = this.data;
      const most = artifacts.reduce((all, each) => Math.max(all, each), 0) || 1;
      const size = side / bins.length;
      context.fillStyle = paint.categories[4];
      artifacts.forEach((amount, at) => {
        context.fillRect(MARGIN.left + side + 8, MARGIN.top + at * size, (amount / most) * BARS, Math.max(1, size - 0.5));
      });
      context.fillStyle = paint.quiet;
      context.textAlign = "left";
      context.textBaseline = "bottom";
      context.fillText("artifacts", MARGIN.left + side + 8, MARGIN.top - 4);
    }

    #drawPointer(context, paint, side) {
      const size = side / this.data.bins.length;
      const [row, column] = this.cell;
      context.strokeStyle = paint.text;
      context.lineWidth = 1.5;
      context.strokeRect(MARGIN.left + column * size, MARGIN.top + row * size, size, size);
    }

    // ---- pointing

    #cellAt(x, y) {
      if (!this.data) return null;
      const at = (offset) => Math.floor((offset / this.side) * this.data.bins.length);
      const [row, column] = [at(y - MARGIN.top), at(x - MARGIN.left)];
      const inside = (each) => each >= 0 && each < this.data.bins.length;
      return inside(row) && inside(column) ? [row, column] : null;
    }

    #point(cell) {
      this.cell = cell;
      this.tell(cell ? this.#textOf(...cell) : "");
      this.redraw();
    }

    #textOf(row, column) {
      const { bins, cells, artifacts } = this.data;
      const weight = cells[row * bins.length + column];
      return `${agentsOf(bins[row])} to ${agentsOf(bins[column])}: ${number(weight)} · ${agentsOf(bins[row])}: ${count(artifacts[row])} artifacts`;
    }

    #key(event) {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!move || !this.data) return;
      event.preventDefault();
      const within = (at) => Math.max(0, Math.min(at, this.data.bins.length - 1));
      const [row, column] = this.cell ?? [0, -1];
      this.#point([within(row + move[0]), within(column + move[1])]);
    }
  }

  const agentsOf = ([first, last]) => (first === last ? `agent ${first}` : `agents ${first} to ${last}`);

  /** Red, green and blue of any CSS colour. */
  function rgbOf(brush, colour) {
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    return brush.getImageData(0, 0, 1, 1).data;
  }

  return { Matrix };
})();
