// Figures: axes, lines, points with a hover text, a legend, and each to download as SVG and as CSV.
/**
 * @typedef {{low: number, high: number, log?: boolean, zero?: boolean, title: string, show: (v: number) => string, marks?: number[]}} Axis
 * @typedef {{place: string, title: string, x: Axis, y: Axis, height?: number, most?: number}} Frame
 * @typedef {{svg: SVGElement, px: (v: number) => number, py: (v: number) => number, layer: SVGElement, width: number}} Canvas
 */

/** @param {number} low @param {number} high @param {number} [n] */
function ticks(low, high, n = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (/** @type {number} */ ([1, 2, 5, 10].find((m) => m * power >= rough)));
  const marks = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) marks.push(Number(v.toPrecision(10)));
  return marks;
}
/** Powers of ten and steps between them. @param {number} low @param {number} high */
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades < 1.2 ? [1, 2, 5] : decades < 3 ? [1, 3] : [1];
  const marks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p += 1) {
    for (const m of steps) if (m * 10 ** p >= low * 0.999 && m * 10 ** p <= high * 1.001) marks.push(m * 10 ** p);
  }
  return marks.length > 1 ? marks : [low, high];
}
/** A range with room around the values. @param {number[]} values @param {number} [share] @returns {[number, number]} */
function around(values, share = 0.08) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low) * share || Math.abs(high) * 0.05 || 1;
  return [low - room, high + room];
}
/** @param {number} x @param {number} y @param {string} text @param {string} [anchor] @param {string} [kind] */
function label(x, y, text, anchor = "middle", kind = "") {
  return svg("text", { x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor, class: kind }, text);
}

/**
 * An empty figure with named axes, as wide as its place so that letters keep their size.
 * @param {Frame} frame @returns {Canvas}
 */
function canvas({ place, title, x, y, height = 320, most = 1400 }) {
  const width = Math.max(260, Math.min(most, $(place).clientWidth || 560));
  const upper = 26;
  const bottom = 46;
  const marksY = y.marks ?? ticks(y.low, y.high);
  const left = 14 + 7.2 * Math.max(...marksY.map((v) => y.show(v).length), 3);
  const start = left + (x.zero ? 52 : 8);
  const right = width - 16;
  /** @param {number} v */
  const share = (v) => (x.log ? Math.log(v / x.low) / Math.log(x.high / x.low) : (v - x.low) / (x.high - x.low));
  /** @param {number} v */
  const px = (v) => (x.zero && v <= 0 ? left + 18 : start + share(v) * (right - start));
  /** @param {number} v */
  const py = (v) => height - bottom - ((v - y.low) / (y.high - y.low)) * (height - bottom - upper);
  const room = Math.max(2, Math.floor((right - start) / 68));
  let marksX = x.marks ?? (x.log ? logTicks(x.low, x.high) : ticks(x.low, x.high, room));
  while (marksX.length > room + 1) marksX = marksX.filter((_, i) => i % 2 === 0);
  const layer = svg("g", {});
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": title },
    ...marksY.map((v) => svg("path", { class: "grid", d: `M${left},${py(v).toFixed(1)}H${right}` })),
    ...marksY.map((v) => label(left - 7, py(v) + 4, y.show(v), "end")),
    ...marksX.flatMap((v) => [svg("path", { class: "axis", d: `M${px(v).toFixed(1)},${height - bottom}v4` }), label(px(v), height - bottom + 17, x.show(v))]),
    x.zero ? label(px(0), height - bottom + 17, "0") : null,
    svg("path", { class: "axis", d: `M${left},${height - bottom}H${right}` }),
    label((left + right) / 2, height - 8, x.title, "middle", "strong"),
    label(2, 14, y.title, "start", "strong"),
    layer);
  return { svg: drawn, px, py, layer, width };
}

/**
 * A point with a text that shows on hover and focus.
 * @param {Canvas} on @param {number} x @param {number} y @param {string} words
 * @param {{r?: number, colour?: string | null, kind?: string, onclick?: () => void, pressed?: boolean}} [how]
 */
function dot(on, x, y, words, { r = 4.5, colour = null, kind = "dot", onclick, pressed } = {}) {
  const node = svg("circle", { cx: on.px(x).toFixed(1), cy: on.py(y).toFixed(1), r, class: kind, "aria-label": words, tabindex: onclick ? "0" : null, role: onclick ? "button" : "img", "aria-pressed": onclick ? String(Boolean(pressed)) : null, "data-hover": words });
  if (colour) node.style.fill = colour;
  if (onclick) {
    node.addEventListener("click", onclick);
    node.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); onclick(); }
    });
  }
  return node;
}
/**
 * @param {Canvas} on @param {number[]} x @param {number[]} y @param {string} colour @param {string} words
 * @param {{kind?: string, width?: number}} [how]
 */
function line(on, x, y, colour, words, { kind = "line", width = 1.8 } = {}) {
  const d = x.map((v, i) => `${i ? "L" : "M"}${on.px(v).toFixed(1)},${on.py(y[i]).toFixed(1)}`).join("");
  const node = svg("path", { d, class: kind, "stroke-width": width, "data-hover": words || null });
  node.style.stroke = colour;
  return node;
}
/** A vertical interval. @param {Canvas} on @param {number} x @param {number} low @param {number} high @param {string} colour */
function spread(on, x, low, high, colour) {
  const node = svg("path", { class: "spread", d: `M${on.px(x).toFixed(1)},${on.py(low).toFixed(1)}V${on.py(high).toFixed(1)}` });
  node.style.stroke = colour;
  return node;
}

/**
 * Put a figure into its place, with its buttons and its numbers as a table; its CSV has `full` numbers.
 * @param {string} id @param {string} title @param {Canvas | null} on @param {[string, boolean][]} heads @param {string[][]} rows
 * @param {(string | number | null)[][]} [full] @param {string[]} [fullHeads]
 */
function show(id, title, on, heads, rows, full = rows, fullHeads = heads.map((h) => h[0])) {
  const place = $(id);
  if (!on) {
    place.replaceChildren(el("p", { class: "empty" }, t("nothing")));
    $(`${id}-more`).replaceChildren();
    return;
  }
  const hint = el("div", { class: "hover", hidden: "", "aria-hidden": "true" });
  place.replaceChildren(on.svg, hint);
  hovering(place, hint);
  $(`${id}-more`).replaceChildren(
    el("div", { class: "buttons" },
      saver("SVG", fileName(`cpm-tune.${id}`, "svg"), () => standalone(on.svg), "image/svg+xml"),
      saver("CSV", fileName(`cpm-tune.${id}`, "csv"), () => csv([fullHeads, ...full]), "text/csv")),
    el("details", {}, el("summary", {}, t("asTable")),
      el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": title }, plainTable(title, heads, rows))));
}
/** @param {HTMLElement} place @param {HTMLElement} hint */
function hovering(place, hint) {
  /** @param {Event} event */
  const point = (event) => {
    const target = /** @type {Element} */ (event.target).closest?.("[data-hover]");
    hint.hidden = !target;
    if (!target) return;
    hint.textContent = target.getAttribute("data-hover");
    const [box, mark] = [place.getBoundingClientRect(), target.getBoundingClientRect()];
    const pointer = /** @type {MouseEvent} */ (event);
    const x = (pointer.clientX || mark.x + mark.width / 2) - box.x;
    const y = (pointer.clientY || mark.y) - box.y;
    hint.style.left = `${Math.max(0, Math.min(x + 12, box.width - hint.offsetWidth - 4))}px`;
    hint.style.top = `${y + 16}px`;
  };
  for (const name of ["pointermove", "focusin"]) place.addEventListener(name, point);
  for (const name of ["pointerleave", "focusout"]) place.addEventListener(name, () => { hint.hidden = true; });
}
/** A figure as a file of its own: its colours are written out. @param {SVGElement} drawn */
function standalone(drawn) {
  const copy = /** @type {SVGElement} */ (drawn.cloneNode(true));
  const styled = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "font-size", "font-weight"];
  const [from, to] = [drawn.querySelectorAll("*"), copy.querySelectorAll("*")];
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    to[i].setAttribute("style", styled.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
    for (const name of ["class", "data-hover", "tabindex", "role", "aria-pressed"]) to[i].removeAttribute(name);
  });
  const [, , width, height] = (drawn.getAttribute("viewBox") ?? "").split(" ");
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("font-family", "system-ui, sans-serif");
  const sheet = svg("rect", { width, height });
  sheet.setAttribute("style", `fill:${getComputedStyle(document.body).backgroundColor}`);
  copy.prepend(sheet);
  return `${new XMLSerializer().serializeToString(copy)}\n`;
}
/** The element that a figure goes to. @param {string} id @param {string} title @param {...Node} axes */
function card(id, title, ...axes) {
  return el("figure", { class: "card" }, el("figcaption", {}, el("h3", {}, title)),
    axes.length ? el("div", { class: "axes" }, ...axes) : null,
    el("div", { id, class: "plot" }), el("div", { id: `${id}-more` }));
}
