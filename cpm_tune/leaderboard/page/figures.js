// The view "figures": quality against what a row costs, and learning curves over steps and over rows of train.
// A press on a point chooses its row.
/** What quality is drawn against: of a row, or of its cell in a column. @type {Record<string, {of: (row: MeasuredRow, column: string) => number | null | undefined, show: (v: number) => string, more?: boolean, linear?: boolean}>} */
const AGAINST = {
  ...Object.fromEntries(["trained", "seconds", "memory"].map((name) => [name, costAxis(name)])),
  forgetting: {
    of: (row, column) => (column ? part("details").rows[row.id]?.[column]?.forgetting?.mean : row.forgetting),
    show: (v) => String(Number(v.toPrecision(3))), linear: true,
  },
  ...Object.fromEntries(["bytes", "speed"].map((name) => [name, costAxis(name)])),
};
/** @param {string} name */
function costAxis(name) {
  const { of, show: words, more } = COSTS[name];
  return {
    /** @param {MeasuredRow} row @param {string} column */
    of: (row, column) => {
      const cost = column ? part("details").rows[row.id]?.[column]?.cost : row.cost;
      return cost ? of(cost) : null;
    },
    show: (/** @type {number} */ v) => (name === "seconds" && v < 10 ? t("nSeconds", Number(v.toPrecision(2))) : words(v)),
    more,
  };
}

view({
  name: "figures",
  title: "figures",
  inMenu: true,
  render(place, here) {
    readChosen(here.query);
    if (!chosenIds().length) chosen = BOARD.rows.slice(0, 4).map((row) => row.id);
    const columns = shownColumns().filter((c) => measuredIn.has(c.id));
    const pairs = columns.map((c) => /** @type {[string, string]} */ ([c.id, `${columnName(c)}, ${metricName(c.metric)}`]));
    /** @param {string} id @param {string} words @param {[string, string][]} choices @param {string} value */
    const choice = (id, words, choices, value) => {
      const select = el("select", { id });
      options(select, choices, value);
      select.addEventListener("change", () => { note(); draw(); });
      return el("label", {}, el("span", {}, t(words)), select);
    };
    const note = () => remember({ rows: chosenIds(), score: $("s-y").value, dataset: $("c-column").value, curve: $("c-what").value });
    const given = here.query.get("score") ?? "";
    const quality = choice("s-y", "scoreAxis", [["mean", t("mean")], ...pairs], given || scoreKey(columns));
    const dataset = choice("c-column", "dataset", pairs, here.query.get("dataset") ?? "");
    const what = choice("c-what", "curveOf", [["dev", t("dev")], ["loss", t("loss")]], here.query.get("curve") ?? "dev");
    const drawn = Object.keys(AGAINST).filter((key) => BOARD.rows.some((row) => known(AGAINST[key].of(row, "")) || Object.keys(row.cells).some((id) => known(AGAINST[key].of(row, id)))));
    const chosenList = el("ul", { id: "chosen", class: "legend" });
    place.replaceChildren(el("h2", { id: "figures" }, t("figures")), el("p", { class: "quiet" }, t("figuresNote")), chosenList,
      el("h3", {}, t("scatter")), el("div", { class: "axes" }, quality),
      el("div", { class: "figures" }, ...drawn.map((key) => card(`against-${key}`, t("against", t(key === "trained" ? "trainedParameters" : key))))),
      drawn.includes("forgetting") ? "" : el("p", { class: "quiet small" }, t("notForgetting")),
      el("h3", {}, t("curves")), el("div", { class: "axes" }, dataset, what),
      el("div", { class: "figures" }, card("curves", t("overSteps")), card("rows-curves", t("overRows"))));
    const draw = () => {
      chosenList.replaceChildren(...chosenRows().map((row) => el("li", {}, swatch(colour(row.id) ?? ""), rowName(row))));
      for (const key of drawn) drawAgainst(key, $("s-y").value, pick);
      drawSteps(COLUMNS.get($("c-column").value), $("c-what").value);
      drawRowCurves(COLUMNS.get($("c-column").value));
    };
    /** @param {string} id */
    const pick = (id) => {
      const focus = document.activeElement?.getAttribute("data-id");
      choose(id, !chosen.includes(id));
      note();
      draw();
      if (focus) /** @type {HTMLElement | null} */ (document.querySelector(`[data-id="${CSS.escape(focus)}"]`))?.focus();
    };
    draw();
  },
});

/** @param {number | null | undefined} value @returns {value is number} */
function known(value) {
  return value !== null && value !== undefined;
}
/**
 * The points that no other beats: none is at least as good at no more cost.
 * @template {{x: number, y: number, sign: number}} P
 * @param {P[]} points @param {boolean} more whether more of x is better
 */
function paretoFront(points, more) {
  const cheaper = [...points].sort((a, b) => (more ? b.x - a.x : a.x - b.x) || b.y * b.sign - a.y * a.sign);
  const front = /** @type {P[]} */ ([]);
  for (const point of cheaper) {
    const last = front[front.length - 1];
    if (!last || point.y * point.sign > last.y * last.sign) front.push(point);
  }
  return front;
}

/**
 * The points of one delta at several factors (`scale`), by the factor.
 * @template {{row: MeasuredRow}} P
 * @param {P[]} points
 */
function scaledAlike(points) {
  const groups = /** @type {Map<string, P[]>} */ (new Map());
  for (const point of points) {
    const { row } = point;
    const others = Object.entries(row.settings).filter(([key]) => key !== "delta_scale").sort();
    const name = JSON.stringify([row.backbone_sha256, row.control, row.delta, others]);
    groups.set(name, [...(groups.get(name) ?? []), point]);
  }
  /** @param {P} point */
  const factor = (point) => Number(point.row.settings.delta_scale ?? 1);
  return [...groups.values()].filter((group) => group.length > 1).map((group) => group.sort((a, b) => factor(a) - factor(b)));
}

/** Quality against a cost. @param {string} measure @param {string} key the quality @param {(id: string) => void} pick */
function drawAgainst(measure, key, pick) {
  const { of, show: words, more = false, linear = false } = AGAINST[measure];
  const title = t("against", t(measure === "trained" ? "trainedParameters" : measure));
  const quality = scoring(key);
  const points = BOARD.rows.flatMap((row) => {
    const x = of(row, COLUMNS.has(key) ? key : "");
    const s = quality(row);
    return known(x) && s.value !== null ? [{ row, x, y: s.value, low: s.low, high: s.high, sign: signOf(key) }] : [];
  });
  const id = `against-${measure}`;
  const name = COLUMNS.has(key) ? metricName(/** @type {Column} */ (COLUMNS.get(key)).metric) : t("mean");
  const heads = /** @type {[string, boolean][]} */ ([[t("row"), false], [t(measure), true], [name, true], [t("low"), true], [t("high"), true], [t("onFront"), false]]);
  if (!points.length) return show(id, title, null, heads, []);
  const front = paretoFront(points, more);
  const xs = points.map((p) => p.x);
  const positive = xs.filter((x) => x > 0);
  const near = positive.length === xs.length && Math.max(...xs) < 3 * Math.min(...xs);
  const straight = linear || near;
  const [low, high] = straight ? around(xs) : positive.length ? [Math.min(...positive), Math.max(...positive) * 1.001] : [1, 10];
  const [y0, y1] = around(points.flatMap((p) => [p.y, ...(colour(p.row.id) && p.low !== null && p.high !== null ? [p.low, p.high] : [])]));
  const on = canvas({
    place: id, title: `${name}: ${title}`,
    x: { low, high, log: !straight, zero: !straight && positive.length < xs.length, title: `${t(measure)}${straight ? "" : ` (${t("logScale")})`}`, show: words },
    y: { low: y0, high: y1, title: name, show: short },
  });
  const steps = front.map((p, i) => `${i ? `H${on.px(p.x).toFixed(1)}V` : `M${on.px(p.x).toFixed(1)},`}${on.py(p.y).toFixed(1)}`).join("");
  if (measure === "forgetting") for (const group of scaledAlike(points)) on.layer.append(line(on, group.map((p) => p.x), group.map((p) => p.y), "var(--quiet)", t("scaled"), { width: 1 }));
  on.layer.append(svg("path", { class: "front", d: steps, "data-hover": t("front") }));
  for (const p of points.sort((a, b) => Number(Boolean(colour(a.row.id))) - Number(Boolean(colour(b.row.id))))) {
    const mark = colour(p.row.id);
    const between = p.low === null || p.high === null ? "" : ` [${t("to", score(p.low), score(p.high))}]`;
    if (mark && p.low !== null && p.high !== null) on.layer.append(spread(on, p.x, p.low, p.high, mark));
    const node = dot(on, p.x, p.y, `${rowName(p.row)}: ${score(p.y)}${between}, ${words(p.x)}${front.includes(p) ? `, ${t("onFront")}` : ""}`,
      { r: mark ? 6 : 4.5, colour: mark, kind: mark ? "dot chosen-dot" : "dot", onclick: () => pick(p.row.id), pressed: Boolean(mark) });
    node.setAttribute("data-id", `${measure}:${p.row.id}`);
    on.layer.append(node);
  }
  const onFront = (/** @type {typeof points[0]} */ p) => t(front.includes(p) ? "yes" : "no");
  const unit = measure === "forgetting" ? t("forgettingUnit") : COSTS[measure].unit;
  const fullHeads = heads.map((h, i) => (i === 1 && unit ? `${h[0]} (${unit})` : h[0]));
  show(id, title, on, heads, points.map((p) => [rowName(p.row), words(p.x), score(p.y), score(p.low), score(p.high), onFront(p)]),
    points.map((p) => [rowName(p.row), p.x, p.y, p.low, p.high, onFront(p)]), fullHeads);
}

/** Learning curves of the chosen rows over steps. @param {Column | undefined} column @param {string} what */
function drawSteps(column, what) {
  const key = /** @type {"dev" | "loss"} */ (what);
  const scale = what === "dev" && column?.unit === "points" ? 100 : 1;
  const digits = what === "dev" ? 2 : 4;
  const lines = (column ? chosenRows() : []).flatMap((row) => seedsOf(row, column?.id ?? "").flatMap((run) => {
    const curve = part("curves")[run.run_id];
    return curve?.step.length ? [{ row, run, x: curve.step, y: curve[key].map((v) => v * scale) }] : [];
  }));
  const name = what === "dev" ? t("devOf", metricName(column?.metric ?? "")) : t("loss");
  const heads = /** @type {[string, boolean][]} */ ([[t("row"), false], [t("seed"), true], [t("step"), true], [name, true]]);
  if (!column || !lines.length) return show("curves", t("overSteps"), null, heads, []);
  const steps = lines.flatMap((l) => l.x);
  const [low, high] = around(lines.flatMap((l) => l.y), 0.06);
  const on = canvas({
    place: "curves", title: `${t("overSteps")}: ${columnName(column)}`,
    x: { low: 0, high: Math.max(...steps), title: t("step"), show: short }, y: { low, high, title: name, show: short },
  });
  for (const { row, run, x, y } of lines) {
    const words = `${rowName(row)}, ${t("seed")} ${run.seed}`;
    const mark = colour(row.id) ?? "";
    on.layer.append(line(on, x, y, mark, words), ...x.map((v, i) => dot(on, v, y[i], `${words}, ${t("step")} ${v}: ${y[i].toFixed(digits)}`, { r: 2.4, colour: mark, kind: "mark" })));
  }
  show("curves", t("overSteps"), on, heads, lines.flatMap(({ row, run, x, y }) => x.map((v, i) => [rowName(row), String(run.seed), String(v), y[i].toFixed(digits)])),
    lines.flatMap(({ row, run, x, y }) => x.map((v, i) => [rowName(row), run.seed, v, y[i]])));
}

/** What is the same of rows that differ in how many rows of train they saw. @param {MeasuredRow} row */
function exceptRows(row) {
  const settings = Object.entries(row.settings).filter(([key]) => !/^train\.(rows|rows_share)$/.test(key)).map(([key, value]) => `${key}=${value}`);
  return [row.backbone, row.control, row.delta, ...settings].filter(Boolean).join(" / ");
}
/** Test scores over the rows of train that were used. @param {Column | undefined} column */
function drawRowCurves(column) {
  const heads = /** @type {[string, boolean][]} */ ([[t("row"), false], [t("trainRows"), true], [t("value"), true], [t("low"), true], [t("high"), true]]);
  /** @type {Map<string, {x: number, y: number, low: number, high: number}[]>} */
  const curves = new Map();
  for (const row of column ? BOARD.rows : []) {
    const cell = cellOf(row, column?.id ?? "");
    const x = part("details").rows[row.id]?.[column?.id ?? ""]?.trained_on;
    if (!cell || row.control || !x || cell.low === null || cell.high === null) continue;
    const name = exceptRows(row);
    curves.set(name, [...(curves.get(name) ?? []), { x, y: cell.mean, low: cell.low, high: cell.high }]);
  }
  const several = [...curves].filter(([, points]) => new Set(points.map((p) => p.x)).size > 1).slice(0, 8);
  /** @type {HTMLElement} */ ($("rows-curves").closest(".card")).hidden = !several.length;
  if (!column || !several.length) return show("rows-curves", t("overRows"), null, heads, []);
  for (const [, points] of several) points.sort((a, b) => a.x - b.x);
  const all = several.flatMap(([, points]) => points);
  const [y0, y1] = around(all.flatMap((p) => [p.low, p.high]));
  const on = canvas({
    place: "rows-curves", title: `${t("overRows")}: ${columnName(column)}`,
    x: { low: Math.min(...all.map((p) => p.x)), high: Math.max(...all.map((p) => p.x)), log: true, title: `${t("trainRows")} (${t("logScale")})`, show: short },
    y: { low: y0, high: y1, title: metricName(column.metric), show: short },
  });
  several.forEach(([name, points], i) => {
    const mark = `var(--c${i})`;
    on.layer.append(line(on, points.map((p) => p.x), points.map((p) => p.y), mark, name),
      ...points.flatMap((p) => [spread(on, p.x, p.low, p.high, mark), dot(on, p.x, p.y, `${name}, ${t("trainRows")} ${p.x}: ${score(p.y)} [${between(p.low, p.high)}]`, { r: 4, colour: mark, kind: "mark" })]));
  });
  show("rows-curves", t("overRows"), on, heads, several.flatMap(([name, points]) => points.map((p) => [name, String(p.x), score(p.y), score(p.low), score(p.high)])),
    several.flatMap(([name, points]) => points.map((p) => [name, p.x, p.y, p.low, p.high])));
  $("rows-curves").append(colourKey(several.map(([name], i) => [`var(--c${i})`, name])));
}
