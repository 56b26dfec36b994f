"use strict";
// The gallery. Of thousands of artifacts only those in sight are in the document, and only pages of
// items near them are kept.

const gallery = (() => {
  const { byId, count, el, number, setText } = dom;
  const PAGE = 60; // items of one request
  const KEPT = 8; // pages
  const WIDTH = 150; // of a tile, at least
  const GAP = 16;
  const CAPTION = 46; // below the picture, which is square
  const MAX_HEIGHT = 15_000_000; // of what is scrolled: browsers have a limit

  class Gallery {
    /** @param {(item: object) => void} open Called with an item that was clicked. */
    constructor(data, open) {
      Object.assign(this, { data, open, run: null /* the last one */, last: 0, live: false, held: null, found: null });
      this.pages = new Map(); // of each page its version and items, in the order of their use
      this.version = 0; // of what there is
      this.generation = 0; // of the artifacts' numbers
      this.tiles = new Map();
      this.area = byId("gallery");
      this.sheet = el("div", { class: "sheet" });
      this.area.replaceChildren(this.sheet);
      this.form = byId("gallery-form");
      this.slider = byId("gallery-step");
      this.slider.max = this.slider.value = 0;
      this.agent = byId("gallery-agent");
      this.agent.value = "";
      this.refresher = new source.Refresher(this.area, 1, () => this.#load(), (problem) => this.#say(problem));
      this.redraw = dom.onceAFrame(() => this.#draw());
      this.resized = new ResizeObserver(this.redraw);
      this.resized.observe(this.area);
      this.#listen();
      this.#changed();
    }

    #listen() {
      this.form.onsubmit = (event) => event.preventDefault();
      this.form.onchange = (event) => event.target !== this.slider && this.#changed();
      this.slider.oninput = () => this.#changed();
      this.agent.oninput = () => (this.agent.value === "" || this.made?.has(this.agent.value)) && this.#changed();
      this.area.onscroll = () => this.#scrolled();
      this.area.onkeydown = (event) => this.#key(event);
      byId("gallery-newer").onclick = () => this.area.scrollTo({ top: 0 });
    }

    close() {
      this.refresher.close();
      this.resized.disconnect();
    }

    /** There may be more. @param {number} last The last step. @param {boolean} live There will be. */
    grow(last, live) {
      const follows = this.#follows;
      this.live = live;
      this.last = last;
      this.slider.max = last;
      if (follows) this.slider.value = last;
      this.#tellStep();
      if (follows && this.held === null) {
        this.version += 1;
        this.refresher.stale();
      }
    }

    /** Forget what was loaded: artifacts of these numbers may be others now. */
    reload() {
      this.generation += 1;
      this.version += 1;
      this.refresher.now();
    }

    show({ run = this.run, agent = this.agent.value }) {
      if (run !== this.run) this.generation += 1;
      this.run = run;
      this.agent.value = agent;
      this.#changed();
    }

    /** What is shown, or being loaded, is of this run. */
    stay(run) {
      this.run = this.query.run = run;
    }

    get #follows() {
      return this.slider.value === this.slider.max;
    }

    // ---- what is asked for

    #changed() {
      const order = new FormData(this.form).get("order");
      const upto = this.#follows ? this.held : Number(this.slider.value);
      this.query = { run: this.run, order, upto, agent: this.agent.value.trim() };
      this.version += 1;
      this.replaced = true;
      if (this.held === null || !this.#follows) this.area.scrollTop = 0;
      this.#tellStep();
      this.refresher.now();
    }

    #tellStep() {
      setText(byId("gallery-step-text"), this.last > 0 ? number(Number(this.slider.value)) : "–");
    }

    /** Who has scrolled down looks at a list that stays as it is, while more is made. */
    #scrolled() {
      const away = this.live && this.area.scrollTop > 0 && this.#follows;
      const held = away ? this.held ?? this.last : null;
      if (held !== this.held) {
        this.held = held;
        byId("gallery-newer").hidden = held === null;
        this.#changed();
      }
      this.redraw();
    }

    // ---- loading

    async #load() {
      const { query, version } = this;
      for (const page of this.#pagesInSight()) {
        if (this.pages.get(page)?.version === version) continue;
        const answer = await this.data.artifacts({ ...query, offset: page * PAGE, limit: PAGE });
        if (query !== this.query) return;
        // Items have moved: what other pages hold is at other places now.
        if (this.replaced || answer.found !== this.found) this.pages.clear();
        [this.replaced, this.found, this.total] = [false, answer.found, answer];
        this.#keep(page, { version, generation: this.generation, items: answer.items });
        this.#offer(answer.agents);
        this.#draw();
      }
      if (performance.getEntriesByName("gallery-shown").length === 0) performance.mark("gallery-shown");
    }

    #keep(page, loaded) {
      this.pages.delete(page);
      this.pages.set(page, loaded);
      for (const old of [...this.pages.keys()].slice(0, -KEPT)) this.pages.delete(old);
    }

    #offer(agents) {
      const made = new Map(agents);
      const same = this.made?.size === made.size && agents.every(([agent]) => this.made.has(agent));
      this.made = made;
      if (same) return;
      const options = agents.map(([agent, amount]) => el("option", { value: agent }, `${count(amount)} artifacts`));
      byId("gallery-agents").replaceChildren(...options);
    }

    #say(problem) {
      const { found, total } = this;
      const note = byId("gallery-empty");
      const none = total?.total > 0 ? "No artifact fits." : "No artifacts yet.";
      setText(note, problem || none);
      note.hidden = found > 0;
      if (!total) return;
      const part = total.chosen === undefined || total.chosen === total.total ? "" : `; ${count(total.chosen)} are in this report`;
      setText(byId("gallery-count"), found === total.total ? count(found) : `${count(found)} of ${count(total.total)}${part}`);
    }

    // ---- drawing

    #grid() {
      const width = this.area.clientWidth - 2;
      const columns = Math.max(1, Math.floor((width + GAP) / (WIDTH + GAP)));
      const wide = Math.floor((width - (columns - 1) * GAP) / columns);
      return { columns, wide, high: wide + CAPTION + GAP };
    }

    #rowsInSight({ high }) {
      const first = Math.max(0, Math.floor(this.area.scrollTop / high) - 1);
      return [first, Math.ceil((this.area.scrollTop + this.area.clientHeight) / high) + 1];
    }

    #pagesInSight() {
      const grid = this.#grid();
      const [first, last] = this.#rowsInSight(grid);
      const end = Math.min(last * grid.columns, this.found || PAGE);
      const pages = [];
      for (let page = Math.floor((first * grid.columns) / PAGE); page * PAGE < end; page += 1) pages.push(page);
      return pages;
    }

    #draw() {
      if (this.found === null) return;
      const grid = this.#grid();
      const height = Math.min(Math.ceil(this.found / grid.columns) * grid.high, MAX_HEIGHT);
      this.sheet.style.height = `${height}px`;
      const [first, last] = this.#rowsInSight(grid);
      const wanted = new Map();
      for (let at = first * grid.columns; at < Math.min(last * grid.columns, this.found); at += 1) {
        const page = this.pages.get(Math.floor(at / PAGE));
        const item = page?.items[at % PAGE];
        const tile = this.#tile(item ? `${page.generation} ${item.artifact}` : `at ${at}`, item);
        tile.place(at, grid);
        wanted.set(tile.key, tile);
      }
      for (const [key, tile] of this.tiles) if (!wanted.has(key)) tile.element.remove();
      this.tiles = wanted;
      if (!this.replaced && this.#pagesInSight().some((page) => !this.pages.has(page))) this.refresher.now();
    }

    #tile(key, item) {
      let tile = this.tiles.get(key);
      if (!tile) {
        tile = new Tile(key, item, this.open);
        this.sheet.append(tile.element);
      }
      tile.tell(item);
      return tile;
    }

    /** Arrow keys go from artifact to artifact. */
    #key(event) {
      const { columns, high } = this.#grid();
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
      const from = [...this.tiles.values()].find((tile) => tile.cover === document.activeElement);
      if (by === undefined || !from) return;
      event.preventDefault();
      const at = from.at + by;
      if (at < 0 || at >= this.found) return;
      const top = Math.floor(at / columns) * high;
      const area = this.area;
      if (top < area.scrollTop) area.scrollTop = top;
      else if (top + high > area.scrollTop + area.clientHeight) area.scrollTop = top + high - area.clientHeight;
      this.#draw();
      [...this.tiles.values()].find((tile) => tile.at === at)?.cover.focus({ preventScroll: true });
    }
  }

  /** An artifact in the gallery, or an empty place until it is there. */
  class Tile {
    constructor(key, item, open) {
      this.key = key;
      this.item = item;
      this.cover = el("button", { type: "button", class: "cover", onclick: () => this.item && open(this.item) });
      this.by = el("span", { class: "by" });
      this.rest = el("span", { class: "rest" });
      this.frame = el("div", { class: "frame" }, item ? artifact.pictureOf(item, "") : null);
      this.element = el("article", { class: "tile" }, this.frame, el("p", {}, this.by, this.rest), this.cover);
    }

    /** Its evaluations may have changed, all else stays. */
    tell(item) {
      if (!item) return;
      this.item = item;
      const score = item.score === null ? "" : ` · ${number(item.score, 3)}`;
      setText(this.by, artifact.agentOf(item));
      setText(this.rest, item.step === null ? score.slice(3) : `step ${number(item.step)}${score}`);
      dom.setAttribute(this.cover, "aria-label",
        `${artifact.nameOf(item)}${item.step === null ? "" : `, step ${item.step}`}${item.score === null ? "" : `, score ${number(item.score, 3)}`}`);
    }

    place(at, { columns, wide, high }) {
      this.at = at;
      const [row, column] = [Math.floor(at / columns), at % columns];
      const { style } = this.element;
      style.transform = `translate(${column * (wide + GAP)}px, ${row * high}px)`;
      style.width = `${wide}px`;
      style.height = `${high - GAP}px`;
      this.frame.style.height = `${wide}px`;
    }
  }

  return { Gallery };
})();
