// Elements and numbers. Everything is set as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.setAttribute("class", value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of children) if (child !== null) node.append(child);
  return node;
}
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}
function swatch(colour) {
  const node = el("span", { class: "swatch", "aria-hidden": "true" });
  node.style.background = colour;
  return node;
}
function options(select, pairs, value) {
  select.replaceChildren(...pairs.map(([key, said]) => el("option", { value: key }, said)));
  select.value = pairs.some(([key]) => key === value) ? value : pairs[0] ? pairs[0][0] : "";
}

function score(value) {
  if (value === null || value === undefined) return "";
  return value.toFixed(Math.abs(value) >= 999.5 ? 0 : 2);
}
function short(value) {
  for (const [unit, size] of [["B", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return Number((value / size).toPrecision(3)) + unit;
  }
  return String(Math.round(value * 100) / 100);
}
function bytes(value) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= size) return `${(value / size).toFixed(1)} ${unit}`;
  }
  return `${value} B`;
}
function duration(seconds) {
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return seconds >= 60 ? `${(seconds / 60).toFixed(1)} min` : `${seconds.toFixed(0)} s`;
}

const COSTS = {
  trained: { of: (c) => c.n_trainable, show: short },
  bytes: { of: (c) => c.bytes, show: bytes },
  speed: { of: (c) => c.samples_per_second, show: (v) => v.toFixed(1), more: true },
  seconds: { of: (c) => c.seconds, show: duration },
  memory: { of: (c) => c.peak_memory_bytes, show: (v) => `${(v / 2 ** 30).toFixed(1)} GiB` },
};

function scalingText(costs) {
  const sizes = new Map();
  for (const cost of costs) for (const part of cost.scaling || []) {
    if (part.world_size > 1 && part.efficiency !== null) {
      sizes.set(part.world_size, [...(sizes.get(part.world_size) || []), part.efficiency]);
    }
  }
  return [...sizes].map(([n, e]) => t("scalingOf", n, (e.reduce((a, b) => a + b) / e.length).toFixed(2))).join("; ");
}

// A plain table with a caption. `columns` are [heading, numeric]; cells are texts or nodes.
function plainTable(caption, columns, rows) {
  const line = (cells, name) => el("tr", {}, ...cells.map((cell, i) => {
    const first = name === "td" && i === 0;
    const scope = name === "th" ? "col" : first ? "row" : null;
    return el(first ? "th" : name, { class: columns[i][1] ? "n" : "", scope }, cell);
  }));
  return el("table", {}, el("caption", {}, caption),
    el("thead", {}, line(columns.map((c) => c[0]), "th")),
    el("tbody", {}, ...rows.map((row) => line(row, "td"))));
}
