// The view "about": the rules of the indices, the columns, sources, and what was left out.
view({
  name: "about",
  title: "about",
  inMenu: true,
  render(place) {
    /** @param {string} title @param {string[]} lines */
    const list = (title, lines) => (lines.length ? [el("h3", {}, title), el("ul", {}, ...lines.map((line) => el("li", {}, line)))] : []);
    const rules = Object.entries(BOARD.indices).flatMap(([name, rule]) => {
      const [title, text] = (language === "zh" && RULES_ZH[name]) || [rule.title, rule.rule];
      return [el("dt", {}, `${title} (${name})`), el("dd", {}, rule.baseline === "none" ? text : `${text} ${t("baseline", rule.baseline)}`)];
    });
    const columns = plainTable(t("columns"),
      [[t("column"), false], [t("capability"), false], [t("metric"), false], [t("template"), false], [t("scoring"), false], [t("rows"), true], [t("notes"), false], [t("apart"), false]],
      BOARD.columns.map((c) => [c.id, capabilityName(c.capability), `${metricName(c.metric)}: ${c.signature}`, c.template_version ? `${c.template} v${c.template_version}` : "", [c.scoring, ...c.protocol.map((n) => noteText(n))].filter(Boolean).join(", "), c.n ? String(c.n) : "", c.notes.map((n) => noteText(n)).join("; "), c.apart.map((n) => noteText(n)).join("; ")]));
    place.replaceChildren(
      el("h2", {}, t("about")),
      el("h3", {}, t("indices")),
      el("dl", { id: "rules" }, ...rules),
      el("h3", {}, t("columns")),
      el("p", { class: "quiet" }, t("columnsNote")),
      el("div", { id: "columns", class: "scroll", role: "region", tabindex: "0", "aria-label": t("columns") }, columns),
      el("div", { id: "sources" }, ...list(t("sources"), Object.values(BOARD.sources))),
      el("div", { id: "left-out" }, ...list(t("leftOut"), BOARD.left_out.map((n) => noteText(n)))));
  },
});
