// The table: sorted by a click on a header, filtered by words, with details of a row on click.

/** [key, header, value of a row, cell, group, better] of every column that is shown. */
function tableColumns() {
  const figures = DATA.columns
    .map((column, index) => ({ column, index }))
    .filter(({ column }) => !state.hidden.has(column.metric))
    .map(({ column, index }) => ({
      key: index === state.column ? "chosen" : `figure ${index}`, head: headOf(column), hint: column.protocol, better: column.better,
      group: `${title(column.metric)} ${arrow(column)}`, value: (row) => row.means[index], chosen: index === state.column,
      cell: (row) => amount(row.means[index], column),
    }));
  const column = chosenColumn();
  const others = rowsHere().some((row) => row.published[state.column] && row.published[state.column].length)
    ? [
        { key: "published", head: "figure", group: `Published ${nameOf(column)}`, value: (row) => firstPublished(row)?.value ?? null, cell: publishedCell },
        { key: "difference", head: "difference", group: `Published ${nameOf(column)}`, value: difference, cell: differenceCell },
      ]
    : [];
  const cost = (name, better) => ({
    key: name, head: COSTS[name].title, group: "Cost ↓", better, value: (row) => costOf(row, name), cell: (row) => costCell(row, name),
  });
  return [
    { key: "model", head: "Model", group: "", value: (row) => row.model.toLowerCase(), cell: (row) => [row.model, same(row) ? [] : element("span", { class: "sub" }, row.network)] },
    ...figures, ...others,
    cost("parameters"), cost("macs"), cost("latency", "lower"), cost("memory", "lower"),
  ];
}

/** "GT-mean" beside its plain form, else the protocol's name. */
function headOf(column) {
  const plain = column.protocol.replace(/-gtmean$/, "");
  const beside = DATA.columns.some((other) => other.metric === column.metric && other.protocol === plain);
  return plain !== column.protocol && beside ? "GT-mean" : column.protocol;
}

const firstPublished = (row) => (row.published[state.column] || [])[0];
const same = (row) => !row.network || row.network.toLowerCase() === row.model.toLowerCase();
const otherImages = (row) => firstPublished(row) && firstPublished(row).images !== row.images.length;

function difference(row) {
  const first = firstPublished(row);
  return first && row.means[state.column] !== null ? row.means[state.column] - first.value : null;
}

function publishedCell(row) {
  const all = row.published[state.column] || [];
  if (!all.length) return "";
  const text = all.map((one) => `${one.value}: ${one.method}, ${one.images} images, ${one.source}`).join("\n");
  return tip(element("span", {}, all[0].value, otherImages(row) ? " *" : ""), text);
}

function differenceCell(row) {
  const value = difference(row);
  if (value === null) return "";
  const good = value > 0 === (chosenColumn().better === "higher");
  return element("span", { class: good ? "up" : "down" }, `${value > 0 ? "+" : "−"}${amount(Math.abs(value))}`, otherImages(row) ? " *" : "");
}

function costCell(row, name) {
  const value = costOf(row, name);
  if (value === null) return "–";
  if (name !== "latency") return COSTS[name].text(value);
  const { q1, q3 } = row.cost.latency;
  return [COSTS.latency.text(value), element("span", { class: "sub" }, `${figure3(q1 * 1000)} to ${figure3(q3 * 1000)}`)];
}

function drawTable() {
  const columns = tableColumns();
  const sorted = columns.find((column) => column.key === state.sort) || columns[0];
  const ascending = state.ascending ?? (sorted.better ? sorted.better === "lower" : sorted.key === "model");
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = rowsHere()
    .filter((row) => words.every((word) => `${row.model} ${row.network || ""}`.toLowerCase().includes(word)))
    .sort((one, other) => compare(one.error ? null : sorted.value(one), other.error ? null : sorted.value(other), ascending));
  const best = columns.map((column) => bestOf(rows.filter((row) => !row.error).map(column.value), column.better));
  show("table", heads(columns, sorted, ascending), element("tbody", {}, rows.map((row) => line(row, columns, best))));
  const star = rows.some((row) => !row.error && otherImages(row));
  show(
    "table-note",
    `${rows.length} of ${rowsHere().length} rows. Bold: the best of those shown. Click a header to sort, a row for its details.`,
    star ? " * Published for another set of images than the one measured here: the two figures cannot be expected to be equal." : "",
  );
}

function compare(one, other, ascending) {
  if (one === other) return 0;
  if (one === null || other === null) return one === null ? 1 : -1; // what is missing stands at the end either way
  return (one < other ? -1 : 1) * (ascending ? 1 : -1);
}

function bestOf(values, better) {
  const known = values.filter((value) => value !== null);
  return better && known.length > 1 ? Math[better === "higher" ? "max" : "min"](...known) : undefined;
}

function heads(columns, sorted, ascending) {
  const groups = [];
  for (const column of columns) {
    const last = groups[groups.length - 1];
    if (last && last.name === column.group) last.span += 1;
    else groups.push({ name: column.group, span: 1 });
  }
  const sort = (column) => () => change({ sort: column.key, ascending: column === sorted ? !ascending : null });
  const header = (column, index) =>
    element(
      "th",
      {
        "data-key": column.key, title: column.hint, scope: "col", tabindex: 0, class: isFirst(columns, index) ? "first" : null, onclick: sort(column),
        onkeydown: (event) => event.key === "Enter" && sort(column)(), "aria-sort": column === sorted ? (ascending ? "ascending" : "descending") : null,
      },
      column.head,
    );
  return element(
    "thead", {},
    element("tr", {}, groups.map((group) => element("th", { colspan: group.span, class: group.name ? "group" : null }, group.name))),
    element("tr", {}, columns.map(header)),
  );
}

const isFirst = (columns, index) => index > 0 && columns[index].group !== columns[index - 1].group;

function line(row, columns, best) {
  if (row.error) {
    return element("tr", {}, element("td", {}, row.model), element("td", { class: "failed", colspan: columns.length - 1 }, `failed: ${row.error}`));
  }
  const cells = columns.map((column, index) => {
    const kinds = [isFirst(columns, index) && "first", column.chosen && "chosen", best[index] !== undefined && column.value(row) === best[index] && "best"];
    return element("td", { class: kinds.filter(Boolean).join(" ") || null }, column.cell(row));
  });
  const toggle = () => {
    if (!state.open.delete(row.model)) state.open.add(row.model);
    drawTable();
  };
  const first = element("tr", { class: "row-of-model", "data-model": row.model, onclick: toggle }, cells);
  return state.open.has(row.model) ? [first, element("tr", {}, details(row, columns.length))] : first;
}

function details(row, width) {
  const cost = row.cost;
  const facts = [
    ["weights, SHA-256", row.weights], ["data, SHA-256", row.data], ["seed", String(row.seed)],
    ...(cost ? [["cost measured", `${cost.size.join("x")}, ${cost.device}, ${cost.threads} threads, ${cost.latency.repeats} runs after ${cost.latency.warmup}`]] : []),
    ...(row.published[state.column] || []).map((one) => ["published", `${one.value} (${one.method}, ${one.images} images): ${one.source}`]),
    ...row.notes.map((note) => ["note", note]),
  ];
  return element("td", { class: "details", colspan: width }, element("dl", {}, facts.map(([name, text]) => [element("dt", {}, name), element("dd", { class: "mono" }, text)])));
}

function drawTableControls() {
  const metrics = [...new Set(DATA.columns.map((column) => column.metric))];
  const box = element("input", { type: "search", id: "filter", placeholder: "part of a name" });
  box.addEventListener("input", () => {
    state.filter = box.value;
    drawTable();
  });
  const checks = metrics.map((metric) => {
    const check = element("input", { type: "checkbox", checked: "" });
    check.addEventListener("change", () => {
      if (check.checked) state.hidden.delete(metric);
      else state.hidden.add(metric);
      drawTable();
    });
    return element("label", { class: "check" }, check, title(metric));
  });
  show("table-controls", element("label", {}, "Filter models", box), checks);
}
