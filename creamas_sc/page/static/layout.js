"use strict";
// A force layout, after Fruchterman and Reingold (1991), that is computed in small slices.

const layout = (() => {
  const ROUNDS = 240;
  const GOLDEN = Math.PI * (3 - Math.sqrt(5));

  /** Places of nodes in a plane, around its origin, about one unit apart. */
  class Layout {
    /**
     * @param {number} size How many nodes.
     * @param {{from: number, to: number, weight: number}[]} edges Between nodes, by their places.
   * @param {number} aspect How wide the picture is to be, beside its height.
     */
    constructor(size, edges, aspect = 1) {
      this.x = new Float64Array(size);
      this.y = new Float64Array(size);
      this.edges = edges;
      this.round = 0;
      this.aspect = aspect;
      this.moveX = new Float64Array(size);
      this.moveY = new Float64Array(size);
      const heaviest = edges.reduce((most, edge) => Math.max(most, edge.weight), 0) || 1;
      this.pull = edges.map((edge) => 0.35 + 0.65 * (edge.weight / heaviest));
      // Evenly, as the seeds of a sunflower: the same society looks the same each time.
      for (let at = 0; at < size; at += 1) {
        this.x[at] = Math.sqrt(at + 0.5) * Math.cos(at * GOLDEN);
        this.y[at] = Math.sqrt(at + 0.5) * Math.sin(at * GOLDEN);
      }
    }

    get settled() {
      return this.round >= ROUNDS || this.x.length < 2;
    }

    /** Keep the places of nodes that were in another layout, and settle the rest from there. */
    takeFrom(other, placeOf) {
      let kept = 0;
      for (let at = 0; at < this.x.length; at += 1) {
        const before = placeOf(at);
        if (before === undefined) continue;
        [this.x[at], this.y[at]] = [other.x[before], other.y[before]];
        kept += 1;
      }
      if (kept > this.x.length / 2) this.round = Math.min(other.round, ROUNDS * 0.7);
    }

    /** Go on for some milliseconds; returns whether the nodes have come to rest. */
    run(milliseconds) {
      const end = performance.now() + milliseconds;
      while (!this.settled) {
        this.#once();
        if (performance.now() >= end) break;
      }
      return this.settled;
    }

    #once() {
      const { x, y, moveX, moveY } = this;
      const size = x.length;
      const warmth = Math.sqrt(size) * 0.1 * (1 - this.round / ROUNDS) ** 1.5 + 0.002;
      const stretch = this.aspect ** 0.6;
      this.#repel();
      this.#attract();
      for (let at = 0; at < size; at += 1) {
        // Towards the middle, so that parts without a connection stay in sight.
        const dx = moveX[at] - x[at] * (0.06 / stretch);
        const dy = moveY[at] - y[at] * (0.06 * stretch);
        const length = Math.hypot(dx, dy) || 1;
        const step = Math.min(length, warmth) / length;
        x[at] += dx * step;
        y[at] += dy * step;
      }
      this.round += 1;
    }

    #repel() {
      const { x, y, moveX, moveY } = this;
      moveX.fill(0);
      moveY.fill(0);
      for (let a = 0; a < x.length; a += 1) {
        const [ax, ay] = [x[a], y[a]];
        let [sumX, sumY] = [0, 0];
        for (let b = a + 1; b < x.length; b += 1) {
          const dx = ax - x[b];
          const dy = ay - y[b];
          const push = 1 / (dx * dx + dy * dy + 0.01);
          sumX += dx * push;
          sumY += dy * push;
          moveX[b] -= dx * push;
          moveY[b] -= dy * push;
        }
        moveX[a] += sumX;
        moveY[a] += sumY;
      }
    }

    #attract() {
      const { x, y, moveX, moveY } = this;
      // Of a dense society every edge pulls less, or all would fall into one point.
      const share = Math.min(1, (3 * x.length) / (this.edges.length + 1));
      this.edges.forEach(({ from, to }, at) => {
        const dx = x[from] - x[to];
        const dy = y[from] - y[to];
        const pull = Math.hypot(dx, dy) * this.pull[at] * share * 0.5;
        moveX[from] -= dx * pull;
        moveY[from] -= dy * pull;
        moveX[to] += dx * pull;
        moveY[to] += dy * pull;
      });
    }
  }

  return { Layout };
})();
