// @ts-nocheck: to be typed with the new view
// The view "figures": cost and quality of all rows, learning curves of the chosen ones; each as a table too.
view({
  name: "figures",
  title: "figures",
  inMenu: true,
  render(place, here) {
    readChosen(here.query);
    if (!chosenIds().length) chosen = BOARD.rows.slice(0, 4).map((row) => row.id);
    const labelled = (id, name) => el("label", {}, el("span", {}, t(name)), el("select", { id }));
    const card = (id, ...axes) => el("figure", { class: "card" }, el("figcaption", {}, el("h3", {}, t(id))), el("div", { class: "axes" }, ...axes), el("div", { id, class: "plot" }),
      el("details", {}, el("summary", {}, t("asTable")), el("div", { id: `${id}-table`, class: "scroll" })));
    place.replaceChildren(el("h2", { id: "figures" }, t("figures")), el("p", { class: "quiet" }, t("figuresNote")),
      el("ul", { id: "chosen", class: "chosen" }, ...chosenRows().map((row) => el("li", {}, swatch(colour(row.id)), el("span", {}, rowName(row))))),
      el("div", { class: "figures" },
        card("scatter", labelled("s-x", "costAxis"), labelled("s-y", "scoreAxis")),
        card("curves", labelled("c-column", "dataset"), labelled("c-what", "curveOf"))));
    const columns = shownColumns().filter((c) => measuredIn.has(c.id));
    const pairs = columns.map((c) => [c.id, `${columnName(c)}, ${metricName(c.metric)}`]);
    options($("s-x"), Object.keys(COSTS).map((k) => [k, t(k)]), "trained");
    options($("s-y"), [["mean", t("mean")], ...pairs], scoreKey(columns));
    options($("c-column"), pairs, "");
    options($("c-what"), [["dev", t("dev")], ["loss", t("loss")]], "dev");
    for (const id of ["s-x", "s-y"]) $(id).addEventListener("change", renderScatter);
    for (const id of ["c-column", "c-what"]) $(id).addEventListener("change", renderCurves);
    renderScatter();
    renderCurves();
  },
});

function chart(width, height, title, ...children) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title }, ...children);
}
// As wide as its place, so that letters keep their size.
function widthOf(id, most = 1400) {
  return Math.max(280, Math.min(most, $(id).clientWidth || 560));
}
function put(id, node, table) {
  $(id).replaceChildren(node || el("p", { class: "empty" }, t("nothing")));
  $(`${id}-table`).replaceChildren(...(table ? [table] : []));
  $(`${id}-table`).parentElement.hidden = !table;
}
function label(x, y, said, anchor = "middle", kind = "") {
  return svg("text", { x, y, "text-anchor": anchor, class: kind }, said);
}
function ticks(low, high, n = 5) {
  const rough = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Number(v.toPrecision(10)));
  return found;
}

// Rows that no other row beats: none is at least as good at no more cost.
function paretoFront(points, moreIsBetter) {
  const cheaper = [...points].sort((a, b) => (moreIsBetter ? b.x - a.x : a.x - b.x) || b.y * b.sign - a.y * a.sign);
  const front = [];
  for (const point of cheaper) {
    if (!front.length || point.y * point.sign > front[front.length - 1].y * front[front.length - 1].sign) front.push(point);
  }
  return front;
}
function costOf(row, key, measure) {
  const cost = key === "mean" ? row.cost : part("details").rows[row.id]?.[key]?.cost;
  return cost ? COSTS[measure].of(cost) : null;
}
function renderScatter() {
  const [measure, key] = [$("s-x").value, $("s-y").value];
  const quality = scoring(key);
  const points = BOARD.rows.map((row) => ({
    row, x: costOf(row, key, measure), y: quality(row).value, sign: signOf(key),
  })).filter((p) => p.x !== null && p.y !== null);
  if (!points.length) return put("scatter", null, null);
  const front = paretoFront(points, COSTS[measure].more);
  const positive = points.map((p) => p.x).filter((x) => x > 0);
  const zero = positive.length < points.length;
  const [w, h, left, bottom, upper] = [widthOf("scatter"), 370, 46, 44, 14];
  const log = (v) => Math.log10(v);
  let [x0, x1] = positive.length ? [log(Math.min(...positive)), log(Math.max(...positive))] : [0, 1];
  if (x1 - x0 < 0.3) [x0, x1] = [x0 - 0.3, x1 + 0.3];
  const start = left + (zero ? 54 : 18);
  const px = (v) => (v > 0 ? start + ((log(v) - x0) / (x1 - x0)) * (w - start - 24) : left + 16);
  let [y0, y1] = [Math.min(...points.map((p) => p.y)), Math.max(...points.map((p) => p.y))];
  const room = (y1 - y0) * 0.08 || 1;
  [y0, y1] = [y0 - room, y1 + room];
  const py = (v) => h - bottom - ((v - y0) / (y1 - y0)) * (h - bottom - upper);
  const whole = [];
  for (let p = Math.floor(x0); p <= Math.ceil(x1); p += 1) for (const m of x1 - x0 < 1.2 ? [1, 2, 5] : x1 - x0 < 3 && w > 400 ? [1, 3] : [1]) {
    const v = m * 10 ** p;
    if (log(v) >= x0 - 1e-9 && log(v) <= x1 + 1e-9) whole.push(v);
  }
  const marked = whole.length > 1 ? whole : [10 ** x0, 10 ** x1];
  const path = front.map((p, i) => `${i ? `H${px(p.x).toFixed(1)}V` : `M${px(p.x).toFixed(1)},`}${py(p.y).toFixed(1)}`).join("");
  const node = chart(w, h, t("scatter"),
    ...ticks(y0, y1).flatMap((v) => [svg("path", { class: "grid", d: `M${left},${py(v)}H${w - 10}` }), label(left - 8, py(v) + 4, short(v), "end")]),
    ...marked.map((v) => label(px(v), h - bottom + 18, COSTS[measure].show(v))),
    zero ? label(px(0), h - bottom + 18, "0") : null,
    label((left + w) / 2, h - 6, `${t(measure)} (log)`, "middle", "strong"),
    svg("path", { class: "front", d: path }),
    ...points.sort((a, b) => (colour(a.row.id) ? 1 : 0) - (colour(b.row.id) ? 1 : 0)).flatMap((p) => {
      const mark = colour(p.row.id);
      const dot = svg("circle", { cx: px(p.x), cy: py(p.y), r: mark ? 6 : 4.5, class: mark ? "chosen-dot" : "dot" },
        svg("title", {}, `${rowName(p.row)}: ${score(p.y)}, ${COSTS[measure].show(p.x)}`));
      if (mark) dot.style.fill = mark;
      const cell = COLUMNS.has(key) && mark ? cellOf(p.row, key) : null;
      const spread = cell ? svg("path", { d: `M${px(p.x)},${py(shown(p.row, key, "low"))}V${py(shown(p.row, key, "high"))}`, "stroke-width": 1.5, opacity: 0.6 }) : null;
      if (spread) spread.style.stroke = mark;
      return [spread, dot].filter(Boolean);
    }));
  const table = plainTable(`${t("scatter")}: ${t("front")}`,
    [[t("row"), false], [t(measure), true], [$("s-y").selectedOptions[0].textContent, true], [t("onFront"), false]],
    points.map((p) => [rowName(p.row), COSTS[measure].show(p.x), score(p.y), front.includes(p) ? t("yes") : t("no")]));
  return put("scatter", node, table);
}

function renderCurves() {
  const [id, what] = [$("c-column").value, $("c-what").value];
  const scale = what === "dev" && COLUMNS.has(id) && COLUMNS.get(id).unit === "points" ? 100 : 1;
  const lines = [];
  for (const row of chosenRows()) {
    for (const run of part("details").rows[row.id]?.[id]?.runs ?? []) {
      const curve = part("curves")[run.run_id];
      if (curve && curve.step.length) lines.push({ row, run, x: curve.step, y: curve[what].map((v) => v * scale) });
    }
  }
  if (!lines.length) return put("curves", null, null);
  const [w, h, left, bottom, upper] = [widthOf("curves"), 330, 46, 44, 14];
  const steps = lines.flatMap((l) => l.x);
  const [least, x1] = [Math.min(...steps), Math.max(...steps)];
  const x0 = least > 0.2 * x1 && least < x1 ? least : 0; // few evaluations: no empty half
  const all = lines.flatMap((l) => l.y);
  let [y0, y1] = [Math.min(...all), Math.max(...all)];
  const room = (y1 - y0) * 0.06 || Math.abs(y1) * 0.05 || 1;
  [y0, y1] = [y0 - room, y1 + room];
  const px = (v) => left + 8 + ((v - x0) / (x1 - x0)) * (w - left - 32);
  const py = (v) => h - bottom - ((v - y0) / (y1 - y0)) * (h - bottom - upper);
  const node = chart(w, h, `${t("curves")}: ${id}`,
    ...ticks(y0, y1).flatMap((v) => [svg("path", { class: "grid", d: `M${left},${py(v)}H${w - 10}` }), label(left - 8, py(v) + 4, short(v), "end")]),
    ...ticks(x0, x1, w < 500 ? 4 : 10).map((v) => label(px(v), h - bottom + 18, short(v))),
    label((left + w) / 2, h - 6, t("step"), "middle", "strong"),
    ...lines.flatMap(({ row, run, x, y }) => {
      const d = `M${x.map((v, i) => `${px(v).toFixed(1)},${py(y[i]).toFixed(1)}`).join("L")}`;
      const path = svg("path", { d, fill: "none", "stroke-width": 1.8, opacity: 0.8 }, svg("title", {}, `${rowName(row)}, ${t("seed")} ${run.seed}`));
      path.style.stroke = colour(row.id);
      if (x.length > 1) return [path];
      const dot = svg("circle", { cx: px(x[0]), cy: py(y[0]), r: 4 });
      dot.style.fill = colour(row.id);
      return [dot];
    }));
  const table = plainTable(`${t("curves")}: ${id}, ${t(what)}`,
    [[t("row"), false], [t("seed"), true], [t("step"), true], [t(what), true]],
    lines.flatMap(({ row, run, x, y }) => x.map((v, i) => [rowName(row), String(run.seed), String(v), y[i].toFixed(what === "dev" ? 2 : 4)])));
  return put("curves", node, table);
}
