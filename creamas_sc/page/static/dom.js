"use strict";
// Elements and texts. All text goes in as text: nothing here ever parses HTML.

const dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** Make an element: attributes, "on..." handlers, and children that are elements or text. */
  function el(tag, attributes = {}, ...children) {
    return furnish(document.createElement(tag), attributes, children);
  }

  /** The same for SVG. */
  function svg(tag, attributes = {}, ...children) {
    return furnish(document.createElementNS(SVG, tag), attributes, children);
  }

  function furnish(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const byId = (id) => document.getElementById(id);

  /** Set text only where it changes: a screen reader and the layout are left in peace. */
  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  /** Set an attribute, or remove it if the value is null. */
  function setAttribute(element, name, value) {
    if (value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }

  // ---- numbers

  const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

  /** A count: 12,345. */
  const count = (value) => (isNumber(value) ? GROUPED.format(value) : "–");

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

  /** A measured value in few characters: 0.4213, 12.5, 1,204, 3.1e-7. */
  function number(value, digits = 4) {
    if (!isNumber(value)) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
    if (size >= 1000) return GROUPED.format(value);
    return String(Number(value.toPrecision(digits)));
  }

  /** Seconds as a person says them: 240 ms, 3.2 s, 4 min 05 s, 2 h 10 min, 3 d 4 h. */
  function duration(seconds) {
    if (!isNumber(seconds) || seconds < 0) return "–";
    if (seconds < 0.9995) return `${Number((seconds * 1000).toPrecision(3))} ms`;
    if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
    const [days, hours] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24];
    const [minutes, rest] = [Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
    if (days > 0) return `${days} d ${hours} h`;
    if (hours > 0) return `${hours} h ${two(minutes)} min`;
    return `${minutes} min ${two(rest)} s`;
  }

  const two = (value) => String(value).padStart(2, "0");

  /** Bytes in binary units: 24.1 MiB. */
  function bytes(value) {
    if (!isNumber(value)) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (value >= 1024 && at < units.length - 1) [value, at] = [value / 1024, at + 1];
    return `${at === 0 ? value : value.toFixed(1)} ${units[at]}`;
  }

  /** A moment, given in seconds since 1970, as the time of its day. */
  function clock(seconds) {
    if (!isNumber(seconds)) return "";
    const at = new Date(seconds * 1000);
    return [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  }

  // ---- drawing

  const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  /** The page's colours by name, as its style sheet has them in the current scheme. */
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    const categories = [1, 2, 3, 4, 5, 6, 7, 8].map((at) => of(`category-${at}`));
    return {
      text: of("text"), quiet: of("quiet"), line: of("line"), ground: of("ground"),
      accent: of("accent"), categories, font: getComputedStyle(document.body).fontFamily,
    };
  }

  /** Draw a canvas again when its size or the colour scheme changes; returns what ends that. */
  function watchCanvas(canvas, redraw) {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const observer = new ResizeObserver(redraw);
    dark.addEventListener("change", redraw);
    observer.observe(canvas);
    return () => {
      dark.removeEventListener("change", redraw);
      observer.disconnect();
    };
  }

  /** Fit a canvas to its box on the screen, at the screen's resolution; returns its context. */
  function fitCanvas(canvas, width, height) {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  /** Make a function that calls another at most once a frame, however often it is called. */
  function onceAFrame(call) {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        call();
      });
    };
  }

  return { el, svg, byId, setText, setAttribute, count, isNumber, number, duration, bytes, clock, reducedMotion, colours, watchCanvas, fitCanvas, onceAFrame };
})();
