"use strict";
// A line chart on a canvas: metrics by step, one line a run, or means with a band.

const chart = (() => {
  const { colours, el, fitCanvas, isNumber, number, onceAFrame, setText } = dom;

  const HEIGHT = 190;
  const MARGIN = { top: 10, right: 10, bottom: 34, left: 56 };
  const NAMED = 6; // more lines than that share one colour

  /**
   * @typedef {object} Line
   * @property {string} name
   * @property {number[]} steps In ascending order.
   * @property {(number|null)[]} values
   * @property {number[]} [low] The band's lower edge.
   * @property {number[]} [high]
   */

  /** One metric: a title, what is read at the pointer, and the canvas. */
  class LineChart {
    /** @param {string} name Of the metric. @param {string} unit Of its values. @param {string} note What they are. */
    constructor(name, unit = "", note = "") {
      this.name = name;
      this.unit = unit && ` ${unit}`;
      this.lines = [];
      this.pointed = null; // a step
      this.canvas = el("canvas", {
        role: "slider", tabindex: 0, height: HEIGHT, "aria-label": `${name} by step`,
        onpointermove: (event) => this.#point(event),
        onpointerleave: () => this.#read(null),
        onblur: () => this.#read(null),
        onkeydown: (event) => this.#key(event),
      });
      this.readings = el("ul", { class: "readings" });
      this.note = el("p", { class: "readings" });
      this.at = el("span", { class: "at" });
      const title = el("figcaption", {}, el("span", { class: "name" }, name),
        el("span", {}, note), this.at);
      this.element = el("figure", { class: "chart" }, title, this.canvas, this.readings, this.note);
      this.redraw = onceAFrame(() => this.draw());
      this.unwatch = dom.watchCanvas(this.canvas, this.redraw);
    }

    /** Show these lines. @param {Line[]} lines @param {number} [total] How many there are, if more. */
    show(lines, total = lines.length) {
      const amount = total > lines.length ? `${lines.length} of ${total} runs` : `${lines.length} runs`;
      setText(this.note, lines.length > NAMED ? `${amount}: point at one to read it` : "");
      const name = this.near?.name;
      this.lines = lines;
      this.near = lines.find((line) => line.name === name) ?? null;
      this.redraw();
    }

    close() {
      this.unwatch();
      this.element.remove();
    }

    draw() {
      const width = this.canvas.clientWidth;
      if (width === 0) return;
      const paint = colours();
      const context = fitCanvas(this.canvas, width, HEIGHT);
      const box = {
        left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: HEIGHT - MARGIN.bottom,
      };
      this.scale = scaleOf(this.lines, box);
      context.font = `11px ${paint.font}`;
      if (this.scale === null) {
        context.fillStyle = paint.quiet;
        context.fillText("no values yet", box.left, (box.top + box.bottom) / 2);
      } else {
        drawAxes(context, this.scale, box, paint, this.unit);
        const many = this.lines.length > NAMED;
        for (const line of this.lines) {
          const strength = many && line !== this.near ? Math.max(0.2, 3 / this.lines.length) : 1;
          drawLine(context, line, this.scale, box, this.#colour(line, paint), strength);
        }
        if (this.pointed !== null) this.#drawPointer(context, box, paint);
      }
      this.#tell(paint);
    }

    #colour(line, paint) {
      if (this.lines.length === 1 || this.lines.length > NAMED) return paint.accent;
      return paint.categories[this.lines.indexOf(line)];
    }

    #drawPointer(context, box, paint) {
      const x = this.scale.x(this.pointed);
      context.strokeStyle = paint.quiet;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(Math.round(x) + 0.5, box.top);
      context.lineTo(Math.round(x) + 0.5, box.bottom);
      context.stroke();
      for (const line of this.#named()) {
        const value = line.values[nearest(line.steps, this.pointed)];
        if (!isNumber(value)) continue;
        context.fillStyle = this.#colour(line, paint);
        context.beginPath();
        context.arc(x, this.scale.y(value), 3.5, 0, 2 * Math.PI);
        context.fill();
      }
    }

    // ---- reading values

    #point({ offsetX, offsetY }) {
      if (this.scale) this.#read(this.scale.stepAt(offsetX), this.scale.valueAt(offsetY));
    }

    #key(event) {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by === undefined || this.lines.length === 0) return;
      event.preventDefault();
      const steps = this.lines[0].steps;
      const at = this.pointed === null ? steps.length - 1 : nearest(steps, this.pointed) + by;
      this.#read(steps[Math.max(0, Math.min(at, steps.length - 1))]);
    }

    /** Read the values at a step, of many lines that of the one closest to a value. */
    #read(step, value) {
      if (this.lines.length === 0 || this.lines[0].steps.length === 0) return;
      const steps = this.lines[0].steps;
      this.pointed = step === null ? null : steps[nearest(steps, step)];
      const away = (line) => Math.abs((line.values[nearest(line.steps, this.pointed)] ?? Infinity) - value);
      if (this.pointed === null) this.near = null;
      else if (value !== undefined) this.near = this.lines.reduce((best, line) => (away(line) < away(best) ? line : best));
      else this.near ??= this.lines[0];
      this.redraw();
    }

    #tell(paint) {
      const told = this.#named().map((line) => {
        const place = this.pointed === null ? line.steps.length - 1 : nearest(line.steps, this.pointed);
        const band = line.low ? ` (${number(line.low[place], 3)} to ${number(line.high[place], 3)})` : "";
        return { line, value: number(line.values[place]) + this.unit + band, step: line.steps[place] };
      });
      const one = this.lines.length === 1;
      const at = told[0]?.step === undefined ? "" : `step ${number(told[0].step)}`;
      setText(this.at, one && at ? `${told[0].value} at ${at}` : at);
      const readings = one ? [] : told;
      this.note.hidden = readings.length > 0 || !this.note.textContent;
      while (this.readings.children.length > readings.length) this.readings.lastChild.remove();
      readings.forEach(({ line, value }, place) => {
        if (!this.readings.children[place]) this.readings.append(el("li", {}, el("i"), el("span"), el("b")));
        const [mark, name, amount] = this.readings.children[place].children;
        mark.style.background = this.#colour(line, paint);
        setText(name, line.name);
        setText(amount, value);
      });
      const text = told.map(({ line, value }) => `${line.name} ${value}`.trim()).join(", ");
      const steps = this.lines[0]?.steps ?? [];
      const said = { min: steps[0] ?? 0, max: steps[steps.length - 1] ?? 0, now: told[0]?.step ?? steps[steps.length - 1] ?? 0, text: at ? `${at}: ${text}` : this.note.textContent || "no values yet" };
      for (const [name, value] of Object.entries(said)) dom.setAttribute(this.canvas, `aria-value${name}`, String(value));
    }

    /** The lines whose values are told: all, or of many the one at the pointer. */
    #named() {
      if (this.lines.length <= NAMED) return this.lines;
      return this.near ? [this.near] : [];
    }
  }

  /** The place of the step that is closest to another one; steps ascend. */
  function nearest(steps, step) {
    let [low, high] = [0, steps.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle + 1;
      else high = middle;
    }
    return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
  }

  /** About as many round numbers as asked for that lie within a range. */
  function ticks(low, high, wanted) {
    if (!(high > low)) return [low];
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
    const found = [];
    for (let at = Math.ceil(low / size); at * size <= high + size * 1e-9; at += 1) found.push(at * size);
    return found;
  }

  function scaleOf(lines, box) {
    let [first, last, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const line of lines) {
      if (line.steps.length === 0) continue;
      first = Math.min(first, line.steps[0]);
      last = Math.max(last, line.steps[line.steps.length - 1]);
      for (const values of [line.values, line.low ?? [], line.high ?? []]) {
        for (const value of values) {
          if (!isNumber(value)) continue;
          if (value < low) low = value;
          if (value > high) high = value;
        }
      }
    }
    if (low > high) return null;
    if (first === last) last = first + 1;
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    // A quantity that is never negative does not get an axis that is.
    [low, high] = [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
    return {
      first, last, low, high,
      x: (step) => box.left + ((step - first) / (last - first)) * (box.right - box.left),
      y: (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top),
      valueAt: (y) => low + ((box.bottom - y) / (box.bottom - box.top)) * (high - low),
      stepAt: (x) => first + ((x - box.left) / (box.right - box.left)) * (last - first),
    };
  }

  function drawAxes(context, scale, box, paint, unit) {
    context.lineWidth = 1;
    context.strokeStyle = paint.line;
    context.fillStyle = paint.quiet;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of ticks(scale.low, scale.high, 4)) {
      const y = Math.round(scale.y(value)) + 0.5;
      context.beginPath();
      context.moveTo(box.left, y);
      context.lineTo(box.right, y);
      context.stroke();
      context.fillText(number(Number(value.toPrecision(12)), 5) + unit, box.left - 8, y);
    }
    context.textBaseline = "top";
    const steps = ticks(scale.first, scale.last, Math.max(2, (box.right - box.left) / 70)).filter(Number.isInteger);
    for (const step of steps) {
      const text = number(step);
      const half = context.measureText(text).width / 2;
      context.textAlign = "center";
      context.fillText(text, Math.min(Math.max(scale.x(step), box.left + half), box.right - half), box.bottom + 6);
    }
    context.textAlign = "right";
    context.fillText("step", box.right, box.bottom + 20);
  }

  function drawLine(context, line, scale, box, colour, strength) {
    if (line.low) {
      context.fillStyle = colour;
      context.globalAlpha = 0.16 * strength;
      context.beginPath();
      line.steps.forEach((step, at) => context.lineTo(scale.x(step), scale.y(line.high[at])));
      for (let at = line.steps.length - 1; at >= 0; at -= 1) context.lineTo(scale.x(line.steps[at]), scale.y(line.low[at]));
      context.fill();
    }
    context.strokeStyle = colour;
    context.lineWidth = strength < 1 ? 1 : 1.75;
    context.globalAlpha = strength;
    context.lineJoin = "round";
    context.beginPath();
    tracePath(context, line, scale, box);
    context.stroke();
    context.globalAlpha = 1;
  }

  /** Of the many values in one column of pixels, only the first, least, greatest and last are drawn. */
  function tracePath(context, { steps, values }, scale, box) {
    const columns = Math.max(1, box.right - box.left);
    let pen = false;
    const go = (step, value) => {
      if (!isNumber(value)) pen = false;
      else if (pen) context.lineTo(scale.x(step), scale.y(value));
      else {
        context.moveTo(scale.x(step), scale.y(value));
        pen = true;
      }
    };
    if (steps.length <= 3 * columns) {
      steps.forEach((step, at) => go(step, values[at]));
      return;
    }
    const size = steps.length / columns;
    for (let column = 0; column < columns; column += 1) {
      const [begin, end] = [Math.floor(column * size), Math.floor((column + 1) * size)];
      let [least, most] = [begin, begin];
      for (let at = begin; at < end; at += 1) {
        if (values[at] < values[least]) least = at;
        if (values[at] > values[most]) most = at;
      }
      for (const at of [...new Set([begin, least, most, end - 1])].sort((a, b) => a - b)) go(steps[at], values[at]);
    }
  }

  return { LineChart, nearest, ticks };
})();
