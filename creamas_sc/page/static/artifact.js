"use strict";
// An artifact: its picture, and the dialog that tells who made it and who thought what of it.

const artifact = (() => {
  const { byId, el, number } = dom;

  /** What shows an artifact, with texts in few digits. A picture is never part of the page: it is code that others wrote. */
  function pictureOf(item, alt) {
    const { type, url } = item.picture ?? {};
    if (type?.startsWith("image/")) {
      return el("img", { src: url, alt, loading: "lazy", decoding: "async", draggable: "false" });
    }
    if (type === "text/html") {
      return el("iframe", { sandbox: true, src: url, title: alt, loading: "lazy", tabindex: -1, referrerpolicy: "no-referrer" });
    }
    return written(item.text.replace(/\d+\.\d{5,}(e[+-]?\d+)?/g, (digits) => number(Number(digits), 3)));
  }

  function written(text) {
    const length = text.length > 60 ? "long" : text.length > 12 ? "middle" : "short";
    return el("span", { class: "text", "data-length": length }, text);
  }

  /** "agent 17"; who is no agent of the society has a name or an address. */
  const agentOf = ({ agent }) => (/^[\d.]+$/.test(agent) ? `agent ${agent}` : agent);
  const nameOf = (item) => `artifact ${item.artifact} by ${agentOf(item)}`;

  /** Any JSON as text. */
  function shown(value) {
    if (typeof value === "number") return number(value);
    if (typeof value === "string") return value;
    return value === null || value === undefined ? "" : JSON.stringify(value);
  }

  class Dialog {
    /** @param {(agent: string) => void} choose Called with an agent whose artifacts are asked for. */
    constructor(choose) {
      this.choose = choose;
      this.element = byId("artifact");
      this.element.onclick = (event) => event.target === this.element && this.element.close();
    }

    /** Show what is known, and the rest once it is there. */
    async open(data, run, item) {
      this.item = item;
      const close = el("button", { type: "button", onclick: () => this.element.close() }, "Close");
      this.parts = el("div", { class: "parts" });
      this.element.replaceChildren(el("header", {}, el("h2", { id: "artifact-title" }, `Artifact ${item.artifact}`), close), this.parts);
      this.#fill(item, item.evaluations === undefined ? "Loading." : "");
      if (!this.element.open) this.element.showModal();
      let [full, problem] = [item, ""];
      try {
        full = await data.artifact(run, item.artifact);
      } catch (error) {
        problem = source.why(error);
      }
      if (this.item === item && this.element.open) this.#fill(full, problem);
    }

    #fill(item, note) {
      const by = el("button", { type: "button", class: "link", onclick: () => this.#show(item.agent) }, agentOf(item));
      const others = item.creator && item.creator !== item.agent ? ` (${item.creator})` : "";
      const facts = el("dl", { class: "list" },
        ...pair("made by", by, others), ...pair("step", shown(item.step) || "–"),
        ...pair("score", item.score === null ? "none" : number(item.score)),
        ...pair("domain", item.domain), ...pair("class", item.class), ...pair("object", item.object_class));
      const picture = el("div", { class: "large" }, pictureOf(item, nameOf(item)));
      const text = item.picture || item.text.length > 12 ? el("pre", {}, item.text) : null;
      this.parts.replaceChildren(
        el("div", {}, picture, text), el("div", {}, facts, ...this.#evaluations(item, note), ...features(item)));
    }

    #evaluations(item, note) {
      const given = item.evaluations ?? [];
      const title = el("h3", {}, `Evaluations (${dom.count(Math.max(item.evaluated ?? 0, given.length))})`);
      if (note) return [title, el("p", { class: "aside", role: "status" }, note)];
      if (given.length === 0) {
        return [title, el("p", { class: "aside" }, item.evaluated ? "They are not in this report." : "Nobody has evaluated it.")];
      }
      const framed = given.some((each) => each.framing !== null && each.framing !== undefined);
      const rows = given.map((each) => el("tr", {},
        el("th", { scope: "row" }, each.agent), el("td", { class: "number" }, shown(each.evaluation)),
        framed ? el("td", {}, shown(each.framing)) : null));
      const heads = ["agent", "evaluation", ...(framed ? ["framing"] : [])];
      const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col", class: head === "evaluation" ? "number" : null }, head)))),
        el("tbody", {}, ...rows));
      const more = item.evaluated > given.length ? el("p", { class: "aside" }, `The first ${given.length} of ${item.evaluated}.`) : null;
      return [title, table, more];
    }

    #show(agent) {
      this.element.close();
      this.choose(agent);
    }
  }

  const pair = (name, ...values) => [el("dt", {}, name), el("dd", {}, ...values)];

  function features(item) {
    if (!item.features?.length) return [];
    const rows = item.features.flatMap(([name, value]) => pair(shown(name), shown(value)));
    return [el("h3", {}, "Features"), el("dl", { class: "list" }, ...rows)];
  }

  return { Dialog, agentOf, nameOf, pictureOf };
})();
