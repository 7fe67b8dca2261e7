// Where a run is wrong: confusion, scores by length, calibration. The numbers are computed when the page is
// made, by the code of the command `errors`.
/**
 * @param {Column} column @param {WholeRun} run
 * @param {((label: string, predicted: string) => void) | null} choose what a cell of the confusion does
 * @param {string} [id]
 */
function errorsPanel(column, run, choose, id = "errors") {
  const errors = run.errors;
  if (!errors) return [el("p", { class: "quiet" }, t("noErrors"))];
  const parts = el("div", { class: "figures", id });
  if (errors.labels.length) parts.append(confusionCard(run, errors, choose));
  if (Object.keys(errors.buckets).length) parts.append(bucketCard(column, errors));
  if (errors.calibration) parts.append(calibrationCard(errors.calibration));
  return parts.children.length ? [parts] : [el("p", { class: "quiet" }, t("noErrors"))];
}

/** The words of a label or of an option's number. @param {WholeRun} run @param {string} name */
function labelName(run, name) {
  const set = run.rows;
  if (!set?.labels || !set.options) return name;
  const at = set.labels.map(String).indexOf(name);
  return at >= 0 && set.options[at] && set.options[at] !== name ? `${name} (${set.options[at]})` : name;
}
/** @param {WholeRun} run @param {Errors} errors @param {((label: string, predicted: string) => void) | null} choose */
function confusionCard(run, errors, choose) {
  const most = Math.max(1, ...errors.confusion.flat());
  const names = [...errors.labels, ""];
  const rows = errors.confusion.map((counts, i) => el("tr", {},
    el("th", { scope: "row" }, labelName(run, errors.labels[i])),
    ...counts.map((n, j) => {
      const kind = names[j] === errors.labels[i] ? "hit" : "miss";
      const words = t("confused", labelName(run, errors.labels[i]), names[j] === "" ? t("other") : labelName(run, names[j]), n);
      const content = choose && n ? el("button", { type: "button", "aria-label": words, onclick: () => choose(errors.labels[i], names[j] || "-") }, String(n)) : String(n);
      const cell = el("td", { class: `n ${kind}` }, content);
      cell.style.setProperty("--share", String(Math.sqrt(n / most)));
      return cell;
    })));
  const table = el("table", { class: "confusion" }, el("caption", {}, t("confusionCaption")),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("goldPredicted")), ...names.map((name) => el("th", { scope: "col", class: "n" }, name === "" ? t("other") : labelName(run, name))))),
    el("tbody", {}, ...rows));
  const each = errors.per_label.slice(0, 30).map((l) => [labelName(run, l.label), l.precision.toFixed(3), l.recall.toFixed(3), l.f1.toFixed(3), String(l.n)]);
  return el("figure", { class: "card" }, el("figcaption", {}, el("h3", {}, t("confusion"))),
    el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": t("confusion") }, table),
    el("details", {}, el("summary", {}, t("perLabel")),
      boxed(t("perLabel"), [[t("label"), false], [t("precision"), true], [t("recall"), true], ["F1", true], [t("rows"), true]], each)));
}
/** Horizontal bars with intervals. @param {Column} column @param {Errors} errors */
function bucketCard(column, errors) {
  const scale = column.unit === "points" ? 100 : 1;
  const entries = Object.entries(errors.buckets).map(([name, s]) => ({ name: name.replace(" to ", "–"), n: s.n, value: scale * s.value, low: scale * s.low, high: scale * s.high }));
  const top = Math.max(...entries.map((e) => e.high)) || 1;
  const width = 460;
  const height = 30 * entries.length + 34;
  /** @param {number} v */
  const px = (v) => 104 + (Math.max(0, v) / top) * (width - 250);
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": t("byLength") },
    label(96, 14, t("characters"), "end"),
    ...entries.flatMap((e, i) => {
      const y = 38 + 30 * i;
      return [
        label(96, y + 4, e.name, "end", "strong"),
        svg("rect", { class: "bucket", x: 104, y: y - 8, width: Math.max(1, px(e.value) - 104).toFixed(1), height: 16 }),
        svg("path", { class: "whisker", d: `M${px(e.low).toFixed(1)},${y}H${px(e.high).toFixed(1)}` }),
        label(width - 4, y + 4, `${score(e.value)}  (n ${e.n})`, "end"),
      ];
    }));
  const rows = entries.map((e) => [e.name, String(e.n), score(e.value), between(e.low, e.high)]);
  return el("figure", { class: "card" }, el("figcaption", {}, el("h3", {}, t("byLength"))), drawn,
    el("details", {}, el("summary", {}, t("asTable")),
      boxed(t("byLength"), [[t("characters"), false], [t("rows"), true], [metricName(column.metric), true], [t("interval"), true]], rows)));
}
/** The reliability curve: the share that is right over the mean probability. @param {Calibration} calibration */
function calibrationCard(calibration) {
  const [width, height, left, bottom] = [460, 250, 44, 42];
  /** @param {number} v */
  const px = (v) => left + v * (width - left - 12);
  /** @param {number} v */
  const py = (v) => height - bottom - v * (height - bottom - 20);
  const bins = calibration.bins;
  const most = Math.max(...bins.map((b) => b.n));
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": t("reliability") },
    ...[0, 0.25, 0.5, 0.75, 1].flatMap((v) => [svg("path", { class: "grid", d: `M${left},${py(v)}H${width - 12}` }), label(left - 7, py(v) + 4, String(v), "end"), label(px(v), height - bottom + 16, String(v))]),
    svg("path", { class: "diagonal", d: `M${px(0)},${py(0)}L${px(1)},${py(1)}` }),
    ...bins.map((b) => svg("rect", { class: "mass", x: (px(b.low) + 1).toFixed(1), width: (px(0.1) - px(0) - 2).toFixed(1), y: (py(0) - 40 * (b.n / most)).toFixed(1), height: (40 * (b.n / most)).toFixed(1) })),
    svg("path", { class: "reliable", d: bins.map((b, i) => `${i ? "L" : "M"}${px(b.confidence).toFixed(1)},${py(b.accuracy).toFixed(1)}`).join("") }),
    ...bins.map((b) => svg("circle", { class: "reliable-dot", cx: px(b.confidence).toFixed(1), cy: py(b.accuracy).toFixed(1), r: 4 }, svg("title", {}, t("binOf", b.n, b.confidence.toFixed(3), b.accuracy.toFixed(3))))),
    label((left + width) / 2, height - 8, t("probability"), "middle", "strong"),
    label(2, 12, t("shareRight"), "start", "strong"));
  const rows = bins.map((b) => [b.low.toFixed(1), String(b.n), b.confidence.toFixed(4), b.accuracy.toFixed(4)]);
  return el("figure", { class: "card" }, el("figcaption", {}, el("h3", {}, t("reliability"))),
    el("p", { class: "quiet small" }, t("eceBrier", calibration.ece.toFixed(4), calibration.brier.toFixed(4), calibration.n)), drawn,
    el("details", {}, el("summary", {}, t("asTable")),
      boxed(t("reliability"), [[t("from"), true], [t("rows"), true], [t("probability"), true], [t("shareRight"), true]], rows)));
}
