// The view "row": how a row's number in a dataset came about, what it costs, how it is made again.
view({
  name: "row",
  title: "row",
  render(place, here) {
    const row = ROWS.get(here.about[0] ?? "");
    if (!row) return place.replaceChildren(el("h2", {}, t("row")), el("p", {}, t("noSuchRow")));
    const columns = BOARD.columns.filter((c) => row.cells[c.id]);
    const column = columns.find((c) => c.id === here.query.get("dataset")) ?? columns[0];
    const tabs = columns.map((c) => el("a", { href: href("row", [row.id], { dataset: c.id }), "aria-current": c === column ? "page" : null }, columnName(c)));
    const body = el("div", { id: "row-body" });
    place.replaceChildren(el("h2", { id: "row-title" }, `${rowName(row)}: ${columnName(column)}`),
      el("nav", { class: "menu tabs", "aria-label": t("datasets") }, ...tabs), body);
    if (row.quoted) body.replaceChildren(...quotedBody(/** @type {Quote} */ (row.cells[column.id])));
    else drawRow(body, row, column, here);
  },
});

/** @param {[string, Node | string | null | undefined][]} pairs */
function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}
/** @param {string} title @param {...(Node | string | null)} content */
function block(title, ...content) {
  return el("section", { class: "block" }, el("h3", {}, title), ...content);
}
/** @param {string} caption @param {[string, boolean][]} heads @param {(Node | string)[][]} rows @param {string} [id] */
function boxed(caption, heads, rows, id) {
  return el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption, id: id ?? null }, plainTable(el("span", { class: "hidden" }, caption), heads, rows));
}
/** A setting's value. @param {unknown} data */
function value(data) {
  if (typeof data === "string") return data;
  if (data === null || data === undefined) return "–";
  const numbers = Array.isArray(data) && data.every((v) => typeof v === "number");
  return numbers ? `[${data.map((v) => Number(v.toFixed(3))).join(", ")}]` : JSON.stringify(data);
}
/** @param {number} low @param {number} high */
function between(low, high) {
  return t("to", score(low), score(high));
}

/** @param {Quote} cell */
function quotedBody(cell) {
  return [
    el("p", {}, el("span", { class: "tag" }, t("quoted")), ` ${t("quotedBand")}.`),
    facts([[t("value"), score(cell.mean)], [t("asked"), cell.printed], [t("metric"), metricName(cell.metric)], [t("template"), cell.template || t("unpublished")], [t("scoring"), cell.scoring || t("unpublished")], [t("notes"), cell.note], [t("source"), BOARD.sources[cell.source]]]),
  ];
}

/** @param {HTMLElement} body @param {MeasuredRow} row @param {Column} column @param {Route} here */
function drawRow(body, row, column, here) {
  const cell = row.cells[column.id];
  const detail = part("details").rows[row.id][column.id];
  const notes = [...column.notes, ...detail.notes].map((note) => noteText(note));
  const others = Object.entries(detail.others).map(([k, v]) => `${metricName(k)} ${score(v)}`).join(", ");
  const seed = el("select", { id: "r-seed" });
  options(seed, detail.runs.map((run) => [run.run_id, `${t("seed")} ${run.seed}`]), here.query.get("run") ?? "");
  const rest = el("div", { id: "row-run" });
  const beside = el("select", { id: "r-with" });
  options(beside, [["", t("chooseRow")], ...rivalsOf(row, column)], "");
  beside.addEventListener("change", () => go("examples", [row.id], { dataset: column.id, run: seed.value, with: beside.value }));
  const trained = detail.runs.some((run) => part("curves")[run.run_id]?.step.length);
  const link = el("a", { id: "row-examples", class: "button" }, t("allExamples"));
  const numbers = block(t("theScore"), facts([
      [t("value"), `${score(cell.mean)}${cell.std === null ? "" : ` ± ${score(cell.std)}`} (${metricName(column.metric)})`],
      [t("interval"), between(cell.low, cell.high)],
      [t("method"), noteText(detail.interval)],
      [t("places"), cell.places === null ? "" : t("placesOf", placesText(cell.places), cell.places.of)],
      [t("others"), others],
      [t("template"), column.template_version ? `${column.template} v${column.template_version}` : ""],
      [t("scoring"), [column.scoring, ...column.protocol].filter(Boolean).join(", ")],
      [t("rows"), String(column.n)],
      [t("notes"), notes.length ? el("ul", { class: "plain" }, ...notes.map((note) => el("li", {}, note))) : ""],
    ]));
  body.replaceChildren(
    el("div", { class: "columns" }, numbers, el("div", {}, block(t("runs"), boxed(t("runs"),
      [[t("seed"), true], [t("value"), true], [t("interval"), true], [t("run"), false]],
      detail.runs.map((run) => [String(run.seed), score(run.value), between(run.low, run.high), el("code", {}, run.run_id)]), "row-seeds")), block(t("cost"), facts(costFacts(detail))))),
    trained ? block(t("curves"), el("div", { class: "figures" }, card("row-dev", t("devOver")), card("row-loss", t("lossOver")))) : "",
    el("div", { class: "axes" }, el("label", {}, el("span", {}, t("run")), seed), link, el("label", {}, el("span", {}, t("nextTo")), beside), copier(() => location.href, "copyLink")),
    rest);
  if (trained) drawCurves("row-dev", row, column, "dev");
  if (trained) drawCurves("row-loss", row, column, "loss");
  const draw = () => {
    link.setAttribute("href", href("examples", [row.id], { dataset: column.id, run: seed.value }));
    whenThere(rest, wholeRun(seed.value), (run) => (run ? runBody(row, column, run) : [withoutRun(detail)]));
  };
  seed.addEventListener("change", () => { remember({ dataset: column.id, run: seed.value }); draw(); });
  draw();
}

/** @param {Detail} detail @returns {[string, string][]} */
function costFacts(detail) {
  const { cost, forgetting, trained_on: rows } = detail;
  const costs = Object.keys(COSTS).flatMap((name) => {
    const amount = costText(name, cost);
    return amount ? [/** @type {[string, string]} */ ([t(name), amount])] : [];
  });
  return [...costs, [t("scaling"), scalingText([cost])], [t("trainRows"), rows ? String(rows) : ""], [t("forgetting"), forgetting ? signed(forgetting.mean) : ""]];
}
/** A row whose run has no part of its own. @param {Detail} detail */
function withoutRun(detail) {
  const settings = Object.entries(part("details").settings[detail.settings] ?? {});
  return el("div", {}, el("p", { class: "quiet" }, t("noRun")),
    el("details", {}, el("summary", {}, t("settings")), boxed(t("settings"), [[t("setting"), false], [t("value"), false]], settings)));
}

/** The learning curves of a row's seeds. @param {string} id @param {Row} row @param {Column} column @param {"dev" | "loss"} what */
function drawCurves(id, row, column, what) {
  const scale = what === "dev" && column.unit === "points" ? 100 : 1;
  const lines = seedsOf(row, column.id).map((run) => ({ run, curve: part("curves")[run.run_id] })).filter((l) => l.curve?.step.length);
  const name = what === "dev" ? t("devOf", metricName(column.metric)) : t("loss");
  const heads = /** @type {[string, boolean][]} */ ([[t("seed"), true], [t("step"), true], [name, true]]);
  if (!lines.length) return show(id, name, null, heads, []);
  const steps = lines.flatMap((l) => l.curve.step);
  const [low, high] = around(lines.flatMap((l) => l.curve[what].map((v) => v * scale)));
  const on = canvas({
    place: id, title: `${rowName(row)}, ${columnName(column)}: ${name}`, height: 260,
    x: { low: 0, high: Math.max(...steps), title: t("step"), show: short },
    y: { low, high, title: name, show: short },
  });
  lines.forEach(({ run, curve }, i) => {
    const y = curve[what].map((v) => v * scale);
    const colour = `var(--c${i % 8})`;
    on.layer.append(line(on, curve.step, y, colour, `${t("seed")} ${run.seed}`),
      ...curve.step.map((x, k) => dot(on, x, y[k], `${t("seed")} ${run.seed}, ${t("step")} ${x}: ${y[k].toFixed(what === "dev" ? 2 : 4)}`, { r: 2.6, colour, kind: "mark" })));
  });
  show(id, name, on, heads, lines.flatMap(({ run, curve }) => curve.step.map((x, k) => [String(run.seed), String(x), (curve[what][k] * scale).toFixed(what === "dev" ? 2 : 4)])));
  $(id).append(colourKey(lines.map(({ run }, i) => [`var(--c${i % 8})`, `${t("seed")} ${run.seed}`])));
}
/** @param {[string, string][]} entries colours and words */
function colourKey(entries) {
  return el("ul", { class: "legend" }, ...entries.map(([colour, words]) => el("li", {}, swatch(colour), words)));
}

/** What one run shows. @param {MeasuredRow} row @param {Column} column @param {WholeRun} run */
function runBody(row, column, run) {
  const blocks = [];
  if (run.parsed?.controls) blocks.push(controlsBlock(column, run));
  if (Object.keys(run.parsed?.forgetting ?? {}).length) blocks.push(forgettingBlock(run));
  else if (run.parsed?.training) blocks.push(block(t("forgetting"), el("p", { class: "quiet small" }, t("notForgetting"))));
  if (run.again) blocks.push(settingsBlock(run), againBlock(run));
  blocks.push(filesBlock(column, run));
  if (run.errors) blocks.push(block(t("whereWrong"), ...errorsPanel(column, run, (label, predicted) => go("examples", [row.id], { dataset: column.id, run: run.run, label, predicted }))));
  return blocks;
}
/** The controls of a run next to its score. @param {Column} column @param {WholeRun} run */
function controlsBlock(column, run) {
  const scale = column.unit === "points" ? 100 : 1;
  const test = run.parsed.scores.test[run.parsed.ranks_by];
  /** @param {{value: number, low: number, high: number}} c */
  const numbers = (c) => [score(scale * c.value), between(scale * c.low, scale * c.high)];
  const sign = column.higher_is_better ? 1 : -1;
  const rows = Object.entries(run.parsed.controls).map(([name, c]) => [
    el("div", {}, controlWords(name), sign * (test.value - c.value) > 0 ? null : el("span", { class: "tag" }, t("notBeaten")), c.note ? el("div", { class: "quiet small" }, noteText(byNumber(c.note))) : null),
    ...numbers(c),
  ]);
  return block(t("controls"), boxed(t("controls"),
    [[t("control"), false], [t("value"), true], [t("interval"), true]],
    [[t("thisRun"), ...numbers(test)], ...rows], "row-controls"));
}
/** A control's note with the number of an option as everywhere on the page, from 0. @param {string} note */
function byNumber(note) {
  return note.replace(/^always 'option (\d+)'/, (_, n) => `always ${Number(n) - 1}`);
}
/** A control's name in words. @param {string} name */
function controlWords(name) {
  const models = /** @type {Record<string, string>} */ ({ majority: "majority", "zero-shot": "zeroShot", "random-backbone": "randomBackbone" });
  return name in models ? t(models[name]) : t("shortcut", shortcutName(name));
}
/** @param {WholeRun} run */
function settingsBlock(run) {
  const again = /** @type {Again} */ (run.again);
  const recipe = again.recipe || t("taskRecipe");
  const rows = again.differences.map((d) => [el("code", {}, d.key), value(d.value), d.known ? value(d.usual) : t("unset")]);
  return block(t("differences", recipe), rows.length
    ? boxed(t("differences", recipe), [[t("setting"), false], [t("thisRun"), false], [t("inRecipe"), false]], rows, "row-settings")
    : el("p", { id: "row-settings" }, t("noDifference")));
}
/** @param {WholeRun} run */
function againBlock(run) {
  const again = /** @type {Again} */ (run.again);
  const where = run.parsed?.environment;
  const sha = /^[0-9a-f]{7,64}$/.test(where?.git_sha ?? "") ? where.git_sha : ""; // it will be pasted
  const commit = sha ? `${sha}${where.git_dirty ? ` (${t("dirty")})` : ""}` : t("noCommit");
  const packages = Object.entries(where?.packages ?? {}).map(([name, version]) => `${name}==${version}`).join(" ");
  const machine = where ? [where.device, ...Object.values(where.gpu ?? {}), where.engine, t("processes", where.world_size), t("threads", where.threads)].join(", ") : "";
  const commands = [
    sha ? `git checkout ${sha}` : "",
    again.command,
  ].filter(Boolean).join("\n");
  return block(t("again"),
    el("pre", { class: "command", tabindex: "0", id: "row-command" }, commands),
    el("div", { class: "buttons" }, copier(() => commands)),
    again.changed.length ? el("p", { id: "row-changed" }, t("changed", again.changed.join(", "))) : null,
    el("p", { class: "quiet small" }, / --data DIR\b/.test(again.command) ? `${t("againData")} ` : null, t("againNote", fileName(run.run, "json"))),
    where ? facts([[t("commit"), commit], ["Python", where.python], [t("packages"), packages], [t("machine"), machine], [t("finished"), where.finished_at]]) : null);
}
/** @param {Column} column @param {WholeRun} run */
function filesBlock(column, run) {
  const source = part("sources")[column.task];
  const record = run.record;
  const folder = part("runs").folder;
  /** @param {string} address @param {string} words */
  const link = (address, words) => (/^https?:\/\//.test(address) ? el("a", { href: address, rel: "noreferrer" }, words) : words);
  return block(t("files"),
    el("div", { class: "buttons" },
      record ? saver(t("record"), fileName(run.run, "json"), () => record, "application/json") : null,
      folder && run.file ? el("a", { class: "button", href: `${folder}/${run.file}`, download: fileName(run.run, "predictions.test.jsonl") }, t("predictionsFile")) : null,
      run.n ? saver(t("examplesCsv"), fileName(run.run, "csv"), () => examplesCsv(run), "text/csv") : null),
    facts([
      [t("folder"), el("code", {}, run.folder)],
      ...(source ? /** @type {[string, Node | string][]} */ ([
        [t("dataset"), source.title],
        [t("paper"), source.paper ? link(source.paper, source.paper) : ""],
        [t("licence"), sourceText(source.licence)],
        [t("obtain"), sourceText(source.obtain)],
        ["BibTeX", el("div", {}, source.citation ? el("p", {}, link(source.citation, t("ownBibtex"))) : null,
          el("details", {}, el("summary", {}, t("shortBibtex")), el("pre", { tabindex: "0" }, source.bibtex), copier(() => source.bibtex)))],
      ]) : []),
    ]));
}
/** The loss on plain texts without and with the delta. @param {WholeRun} run */
function forgettingBlock(run) {
  const rows = Object.entries(run.parsed.forgetting).map(([name, f]) =>
    [name, f.bare.toFixed(4), f.tuned.toFixed(4), el("div", {}, signed(f.difference), el("div", { class: "quiet small" }, f.low === null || f.texts === 1 ? t("oneText") : t("to", signed(f.low), signed(f.high))))]);
  return block(t("forgetting"), el("p", { class: "quiet small" }, t("forgettingNote")),
    boxed(t("forgetting"), [[t("source"), false], [t("bare"), true], [t("withDelta"), true], [t("change"), true]], rows, "row-forgetting"));
}
/** @param {number} value */
function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
}
