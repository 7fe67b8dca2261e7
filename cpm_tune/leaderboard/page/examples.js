// The view "examples": all predictions of a run, filtered and sorted, alone or next to those of another row.
const PAGE_OF = 40; // examples that are drawn at once
const FILTERS = /** @type {const} */ (["show", "label", "predicted", "shortest", "longest", "least", "most", "find", "sort", "with"]);

view({
  name: "examples",
  title: "examples",
  render(place, here) {
    const row = ROWS.get(here.about[0] ?? "");
    const column = row && (COLUMNS.get(here.query.get("dataset") ?? "") ?? BOARD.columns.find((c) => row.cells[c.id]));
    if (!row || row.quoted || !column || !row.cells[column.id]) return place.replaceChildren(el("h2", {}, t("examples")), el("p", {}, t("noSuchRow")));
    const seeds = seedsOf(row, column.id);
    const run = seeds.find((s) => s.run_id === here.query.get("run")) ?? seeds[0];
    const other = otherRun(row, column, here.query.get("with"), run.seed);
    const body = el("div", { id: "examples-body" });
    place.replaceChildren(
      el("h2", { id: "examples-title" }, t("examplesOf", rowName(row), columnName(column))),
      el("div", { class: "buttons" }, el("a", { class: "button", href: href("row", [row.id], { dataset: column.id, run: run.run_id }) }, t("backToRow")), copier(() => location.href, "copyLink")),
      body);
    whenThere(body, Promise.all([wholeRun(run.run_id), other ? wholeRun(other.run.run_id) : null]), ([first, second]) =>
      (first?.n ? examplesBody(row, column, first, other && second ? { ...other, part: second } : null, here) : [el("p", { class: "quiet" }, t("noPredictions"))]));
  },
});

/** The other measured rows of a column, the best first. @param {Row} row @param {Column} column @returns {[string, string][]} */
function rivalsOf(row, column) {
  const sign = column.higher_is_better ? 1 : -1;
  const others = BOARD.rows.filter((r) => r !== row && cellOf(r, column.id));
  return others.sort((a, b) => sign * (b.cells[column.id].mean - a.cells[column.id].mean)).map((r) => [r.id, `${rowName(r)}, ${score(r.cells[column.id].mean)}`]);
}
/** The run of another row with the same seed, or its first. @param {Row} row @param {Column} column @param {string | null} id @param {number} seed */
function otherRun(row, column, id, seed) {
  const other = ROWS.get(id ?? "");
  if (!other || other.quoted || other === row) return null;
  const seeds = seedsOf(other, column.id);
  const run = seeds.find((s) => s.seed === seed) ?? seeds[0];
  return run ? { row: other, run } : null;
}
/** An example's id. @param {Examples} examples @param {number} i */
function idOf(examples, i) {
  return examples.id === null ? String(i) : examples.id[i];
}
/** @param {Examples} examples */
function sizeOf(examples) {
  return examples.right.length;
}
/** Whether two runs answered the same rows. @param {Examples} a @param {Examples} b */
function sameRows(a, b) {
  const n = Math.min(sizeOf(a), sizeOf(b));
  for (let i = 0; i < n; i += 1) if (idOf(a, i) !== idOf(b, i) || JSON.stringify(a.target[i]) !== JSON.stringify(b.target[i])) return 0;
  return n;
}
/** Which of two runs has an example right; "" if it is not judged. @param {Examples} a @param {Examples} b @param {number} i */
function kindOfBoth(a, b, i) {
  const [x, y] = [a.right[i], b.right[i]];
  if (x === "-" || y === "-") return JSON.stringify(a.prediction[i]) === JSON.stringify(b.prediction[i]) ? "same" : "other";
  return x === "1" ? (y === "1" ? "both" : "first") : y === "1" ? "second" : "neither";
}

/**
 * @param {MeasuredRow} row @param {Column} column @param {WholeRun} run
 * @param {{row: MeasuredRow, run: SeedRun, part: WholeRun} | null} other @param {Route} here
 */
function examplesBody(row, column, run, other, here) {
  const first = run.examples;
  const n = other ? sameRows(first, other.part.examples) : sizeOf(first);
  const set = run.rows;
  const judged = /[01]/.test(first.right);
  const get = (/** @type {string} */ name) => here.query.get(name) ?? "";
  const list = el("ol", { id: "examples-list", class: "examples" });
  const status = el("p", { id: "examples-status", class: "quiet", role: "status" });
  const more = el("button", { type: "button", id: "examples-more" }, t("more"));
  /** @param {string} id @param {string} words @param {[string, string][]} pairs @param {string} chosen */
  const choice = (id, words, pairs, chosen) => {
    const select = el("select", { id });
    options(select, pairs, chosen);
    return el("label", {}, el("span", {}, words), select);
  };
  /** @param {string} id @param {string} words @param {string} type */
  const field = (id, words, type) => el("label", {}, el("span", {}, words), el("input", { id, type, step: "any", value: get(id.slice(2)), autocomplete: "off" }));
  const labels = (run.errors?.labels ?? []).map((name) => /** @type {[string, string]} */ ([name, labelName(run, name)]));
  const any = /** @type {[string, string]} */ (["", t("all")]);
  const shows = /** @type {[string, string][]} */ (other
    ? [any, ["differ", t("differ")], ...(judged ? [["first", t("onlyFirst")], ["second", t("onlySecond")], ["neither", t("bothWrong")], ["both", t("bothRight")]] : [])]
    : [any, ...(judged ? [["right", t("onlyRight")], ["wrong", t("onlyWrong")]] : [])]);
  const sorts = /** @type {[string, string][]} */ ([["", t("fileOrder")],
    ...(first.lead ? [["surest", t("surestWrong")], ["unsure", t("leastSure")]] : []),
    ...(set?.lengths.length ? [["longest", t("longestFirst")], ["shortest", t("shortestFirst")]] : [])]);
  const form = el("form", { class: "filters", id: "examples-filters" },
    choice("e-with", t("nextTo"), [["", t("noOther")], ...rivalsOf(row, column)], other?.row.id ?? ""),
    shows.length > 1 ? choice("e-show", t("filter"), shows, get("show") || (other ? "differ" : "")) : null,
    labels.length ? choice("e-label", t("target"), [any, ...labels], get("label")) : null,
    labels.length ? choice("e-predicted", t("prediction"), [any, ...labels, ["-", t("other")]], get("predicted")) : null,
    set?.lengths.length ? field("e-shortest", t("lengthFrom"), "number") : null,
    set?.lengths.length ? field("e-longest", t("lengthTo"), "number") : null,
    first.lead ? field("e-least", t("leadFrom"), "number") : null,
    first.lead ? field("e-most", t("leadTo"), "number") : null,
    field("e-find", t("findText"), "search"),
    choice("e-sort", t("sort"), sorts, get("sort")));
  form.addEventListener("submit", (event) => event.preventDefault());
  let numbers = /** @type {number[]} */ ([]);
  let drawn = 0;
  const draw = () => {
    const next = numbers.slice(drawn, drawn + PAGE_OF);
    list.append(...next.map((i) => exampleItem(run, other?.part ?? null, i)));
    drawn += next.length;
    more.hidden = drawn >= numbers.length;
  };
  const filter = () => {
    const chosen = Object.fromEntries(FILTERS.map((name) => [name, /** @type {HTMLInputElement | null} */ (form.querySelector(`#e-${name}`))?.value ?? ""]));
    remember({ dataset: column.id, run: run.run, ...chosen });
    numbers = exampleNumbers(run, other?.part ?? null, n, chosen);
    list.replaceChildren();
    drawn = 0;
    const agree = other && n > 0 && !numbers.length && FILTERS.every((name) => ["with", "sort", "show"].includes(name) || !chosen[name]) && chosen.show === "differ";
    status.textContent = agree ? t("agree", n) : t("examplesShown", numbers.length, n) + (run.n > sizeOf(first) ? ` ${t(part("runs").folder ? "examplesOfAll" : "examplesKept", run.n)}` : "");
    draw();
  };
  more.addEventListener("click", draw);
  for (const name of ["input", "change"]) {
    form.addEventListener(name, (event) => { if (/** @type {HTMLElement} */ (event.target).id !== "e-with") filter(); });
  }
  form.querySelector("#e-with")?.addEventListener("change", (event) => {
    const id = /** @type {HTMLSelectElement} */ (event.target).value;
    go("examples", [row.id], { dataset: column.id, run: run.run, with: id });
  });
  const choose = (/** @type {string} */ label, /** @type {string} */ predicted) => {
    for (const [id, value] of [["e-show", ""], ["e-label", label], ["e-predicted", predicted]]) {
      const select = /** @type {HTMLSelectElement | null} */ (form.querySelector(`#${id}`));
      if (select) select.value = value;
    }
    filter();
    status.scrollIntoView({ block: "center" });
  };
  const panels = other
    ? [bothBlock(row, other, first, n), ...[{ row, part: run }, other].map((one, i) => el("details", { class: "block" }, el("summary", {}, t("errorsOf", rowName(one.row))), ...errorsPanel(column, one.part, null, `errors-${i}`)))]
    : [el("details", { class: "block", open: "" }, el("summary", {}, t("whereWrong")), ...errorsPanel(column, run, choose))];
  setTimeout(filter);
  return [...panels, form, status, el("p", { class: "quiet small" }, set?.rows.length ? t(set.slot ? "asPrompts" : "asFields") : t("noTexts")), list, more];
}

/** How many examples each of two rows has right. @param {MeasuredRow} row @param {{row: MeasuredRow, part: WholeRun}} other @param {Examples} first @param {number} n */
function bothBlock(row, other, first, n) {
  if (!n) return el("p", { id: "both", class: "quiet" }, t("otherRows"));
  const counts = /** @type {Record<string, number>} */ ({});
  for (let i = 0; i < n; i += 1) {
    const kind = kindOfBoth(first, other.part.examples, i);
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  const judged = { both: "bothRight", first: "onlyFirst", second: "onlySecond", neither: "bothWrong" };
  const others = { same: "samePrediction", other: "otherPrediction" };
  const names = Object.entries({ ...("same" in counts || "other" in counts ? others : {}), ...(/[01]/.test(first.right) ? judged : {}) });
  const rows = names.map(([kind, words]) => [t(words), String(counts[kind] ?? 0), `${((100 * (counts[kind] ?? 0)) / n).toFixed(1)}%`]);
  return el("div", {}, el("p", {}, t("firstIs", rowName(row)), el("br"), t("secondIs", rowName(other.row))),
    boxed(t("bothRows"), [["", false], [t("rows"), true], [t("share"), true]], rows, "both"));
}

/** The numbers of the examples that fit. @param {WholeRun} run @param {WholeRun | null} other @param {number} n @param {Record<string, string>} chosen */
function exampleNumbers(run, other, n, chosen) {
  const { examples, rows: set } = run;
  const lengths = set?.lengths ?? [];
  const words = chosen.find.toLowerCase().split(/\s+/).filter(Boolean);
  /** @param {string} text @param {number} otherwise */
  const bound = (text, otherwise) => (text.trim() === "" || Number.isNaN(Number(text)) ? otherwise : Number(text));
  const [shortest, longest] = [bound(chosen.shortest, -Infinity), bound(chosen.longest, Infinity)];
  const [least, most] = [bound(chosen.least, -Infinity), bound(chosen.most, Infinity)];
  const labels = new Set(run.errors?.labels ?? []);
  const numbers = [];
  for (let i = 0; i < n; i += 1) {
    if (chosen.show === "right" && examples.right[i] !== "1") continue;
    if (chosen.show === "wrong" && examples.right[i] !== "0") continue;
    if (other && chosen.show && !["right", "wrong"].includes(chosen.show)) {
      const kind = kindOfBoth(examples, other.examples, i);
      const differ = ["first", "second", "other"].includes(kind) || (kind === "neither" && JSON.stringify(examples.prediction[i]) !== JSON.stringify(other.examples.prediction[i]));
      if (chosen.show === "differ" ? !differ : kind !== chosen.show) continue;
    }
    if (chosen.label && String(examples.target[i]) !== chosen.label) continue;
    const predicted = examples.prediction[i] === null ? "" : String(examples.prediction[i]);
    if (chosen.predicted && (chosen.predicted === "-" ? labels.has(predicted) : predicted !== chosen.predicted)) continue;
    if (lengths.length && (lengths[i] < shortest || lengths[i] > longest)) continue;
    const lead = examples.lead?.[i] ?? null;
    if ((least > -Infinity || most < Infinity) && (lead === null || lead < least || lead > most)) continue;
    if (words.length) {
      const text = searched(run, other, i);
      if (!words.every((word) => text.includes(word))) continue;
    }
    numbers.push(i);
  }
  /** @type {Record<string, (i: number) => number>} */
  const keys = {
    surest: (i) => examples.lead?.[i] ?? Infinity,
    unsure: (i) => Math.abs(examples.lead?.[i] ?? Infinity),
    longest: (i) => -(lengths[i] ?? 0),
    shortest: (i) => lengths[i] ?? 0,
  };
  const key = keys[chosen.sort];
  return key ? numbers.map((i) => ({ i, key: key(i) })).sort((a, b) => a.key - b.key || a.i - b.i).map((one) => one.i) : numbers;
}
/** The text in which words are looked for. @param {WholeRun} run @param {WholeRun | null} other @param {number} i */
function searched(run, other, i) {
  const row = run.rows?.rows[i];
  const parts = [idOf(run.examples, i), run.examples.prediction[i], run.examples.target[i], run.examples.text?.[i], row?.text, row?.after, ...(row?.options ?? []), other?.examples.prediction[i]];
  return parts.map((p) => (typeof p === "string" ? p : p === undefined || p === null ? "" : JSON.stringify(p))).join("\n").toLowerCase();
}

/** @param {WholeRun} run @param {WholeRun | null} other @param {number} i */
function exampleItem(run, other, i) {
  const { examples, rows: set } = run;
  const row = set?.rows[i];
  const names = row?.options ?? set?.options ?? [];
  const length = set?.lengths[i];
  const head = [idOf(examples, i), length === undefined ? "" : t("lengthOf", length), examples.lead?.[i] === undefined || examples.lead[i] === null ? "" : t("leadOf", Number(examples.lead[i]).toFixed(3))].filter(Boolean).join(" · ");
  const slot = row && set?.slot ? el("span", { class: "slot" }, t(set.slot === "option" ? "slotOption" : "slotAnswer")) : null;
  return el("li", { value: i + 1 },
    el("div", { class: "quiet small" }, head),
    row ? el("div", { class: "prompt" }, row.text, slot, row.after ?? null) : null,
    facts([[t("target"), answerNode(set, names, examples.target[i])]]),
    el("div", { class: other ? "answers two" : "answers" },
      answerPart(run, names, i, other ? t("first") : ""), other ? answerPart(other, names, i, t("second")) : null));
}
/** What one run answered. @param {WholeRun} run @param {string[]} names @param {number} i @param {string} heading */
function answerPart(run, names, i, heading) {
  const { examples, rows: set } = run;
  const right = examples.right[i];
  const verdict = right === "-" ? null : el("span", { class: right === "1" ? "right" : "wrong" }, t(right === "1" ? "right" : "wrong"));
  const scores = examples.scores?.[i] ?? [];
  const taken = scores.length && examples.prediction[i] !== null ? scores.indexOf(Math.max(...scores)) : -1;
  const given = examples.prediction[i] ?? examples.text?.[i] ?? null;
  return el("div", { class: "answer" }, el("div", {}, heading ? el("b", {}, `${heading} `) : null, verdict, " ", answerNode(set, names, given)),
    scores.length ? el("ul", { class: "options named" }, ...scores.map((s, k) => el("li", { class: k === taken ? "taken" : "" }, el("span", { class: "number" }, s.toFixed(3)), ` ${names[k] ?? k}`))) : null);
}
/** An answer, with the text that a label or the number of an option stands for. @param {ExampleSet | null} set @param {string[]} names @param {unknown} data */
function answerNode(set, names, data) {
  const at = set?.labels ? set.labels.indexOf(data) : data;
  const text = Number.isInteger(at) ? names[/** @type {number} */ (at)] : undefined;
  return el("span", { class: "text" }, value(data), text === undefined || text === data ? null : el("span", { class: "quiet" }, ` ${text}`));
}
/** A run's examples as CSV. @param {WholeRun} run */
function examplesCsv(run) {
  const { examples, rows: set } = run;
  const heads = ["id", "prediction", "target", "right", "margin", "length"];
  const lines = [...examples.right].map((right, i) => [
    idOf(examples, i), value(examples.prediction[i]), value(examples.target[i]), right === "-" ? "" : right,
    examples.lead?.[i] ?? null, set?.lengths[i] ?? null,
  ]);
  return csv([heads, ...lines]);
}
