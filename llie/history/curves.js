// Learning curves of one run or of several over each other.

const view = { smooth: 0, hidden: new Set() };
const colourOf = (run) => COLOURS[DATA.runs.indexOf(run) % COLOURS.length];
const shownRuns = () => DATA.runs.filter((run) => !view.hidden.has(run.name));
const namesOf = (kind) => [...new Set(DATA.runs.flatMap((run) => Object.keys(run[kind])))];

/** Mean over a window around each point. */
function smoothed(curve, half) {
  if (!half) return curve;
  return curve.map(([x], place) => {
    const near = curve.slice(Math.max(0, place - half), place + half + 1);
    return [x, near.reduce((sum, point) => sum + point[1], 0) / near.length];
  });
}

/** Losses, rates and norms span powers of ten. */
const logarithmic = (name, values) => /^(loss|lr_|grad_norm|seconds)/.test(name) && Math.min(...values) > 0 && Math.max(...values) > 5 * Math.min(...values);

function chart(kind, name) {
  const curves = shownRuns().filter((run) => run[kind][name] && run[kind][name].length).map((run) => [run, smoothed(run[kind][name], kind === "training" ? view.smooth : 0)]);
  const points = curves.flatMap(([, curve]) => curve);
  if (!points.length) return [];
  const box = { left: 62, right: 604, top: 26, bottom: 226 };
  const values = points.map((point) => point[1]);
  const log = logarithmic(name, values);
  const x = scale(points.map((point) => point[0]), [box.left, box.right]);
  const y = scale(values, [box.bottom, box.top], log);
  const title = `${name}${log ? " (logarithmic)" : ""}`;
  const lines = curves.map(([run, curve]) => {
    const path = curve.map((point, index) => `${index ? "L" : "M"}${x.to(point[0]).toFixed(1)} ${y.to(point[1]).toFixed(1)}`).join("");
    const last = curve[curve.length - 1];
    const text = `${run.name}\n${name}: ${figure(last[1])} at iteration ${last[0]}`;
    const best = kind === "validation" && run.best !== null && curve.find((point) => point[0] === run.best);
    return [
      shape("path", { d: path, class: "curve", stroke: colourOf(run) }),
      tip(shape("circle", { cx: x.to(last[0]), cy: y.to(last[1]), r: 4, fill: colourOf(run) }), text),
      best ? tip(shape("circle", { cx: x.to(best[0]), cy: y.to(best[1]), r: 6, fill: "none", stroke: colourOf(run), "stroke-width": 2 }), `${run.name}\nbest checkpoint, iteration ${best[0]}\n${name}: ${figure(best[1])}`) : null,
    ];
  });
  return element("div", { class: "panel" }, shape("svg", { viewBox: "0 0 620 266", role: "img", "aria-label": name }, axes(x, y, box, "iteration", title), lines));
}

function grid(header, lines) {
  const row = (kind, cells) => element("tr", {}, cells.map((cell) => element(kind, {}, cell)));
  return [element("thead", {}, row("th", header)), element("tbody", {}, lines.map((line) => row("td", line)))];
}

function named(run) {
  return element("span", {}, element("i", { style: `background: ${colourOf(run)}` }), run.name);
}

function drawControls() {
  const boxes = DATA.runs.map((run) => {
    const box = element("input", { type: "checkbox", checked: view.hidden.has(run.name) ? null : "" });
    box.addEventListener("change", () => {
      if (box.checked) view.hidden.delete(run.name);
      else view.hidden.add(run.name);
      drawCurves();
    });
    return element("label", { class: "check legend" }, box, named(run));
  });
  const smooth = choice("Smoothing of training curves", [[0, "none"], [2, "5 points"], [10, "21 points"], [30, "61 points"]], 0, (value) => {
    view.smooth = Number(value);
    drawCurves();
  });
  show("controls", smooth, boxes);
}

function drawCurves() {
  show("validation", namesOf("validation").map((name) => chart("validation", name)));
  const order = (name) => ["loss", "lr_", "grad_norm", "seconds"].findIndex((start) => name.startsWith(start)) + 1 || 9;
  show("training", namesOf("training").sort((one, other) => order(one) - order(other)).map((name) => chart("training", name)));
}

function drawTables() {
  const columns = namesOf("validation");
  const lines = DATA.runs.flatMap((run) =>
    [["last", run.last_figures], ["best", run.best_figures]].filter(([, figures]) => Object.keys(figures).length).map(([which, figures]) => [
      element("span", { class: "legend" }, named(run)),
      which === "best" ? `best, iteration ${run.best} (${run.weights})` : `last (${run.weights})`,
      ...columns.map((column) => figure(figures[column])),
    ]),
  );
  show("figures", grid(["run", "checkpoint", ...columns], lines));
  if (DATA.seeds) {
    document.getElementById("over-seeds").hidden = false;
    const header = ["figure", "checkpoint", "mean", "deviation", ...DATA.seeds.names.map((seed) => `seed ${seed}`)];
    show("seeds", grid(header, DATA.seeds.lines.map((line) => [line.figure, line.checkpoint, figure(line.mean), figure(line.deviation), ...line.seeds.map((value) => figure(value))])));
    show("notes", DATA.seeds.notes.map((note) => element("p", {}, note)));
  }
}

function drawOptions() {
  const keys = [...new Set(DATA.runs.flatMap((run) => Object.keys(run.options)))];
  const lines = (chosen, kind) => chosen.map((key) => [key, ...DATA.runs.map((run) => element("span", { class: "mono" }, run[kind][key] ?? "–"))]);
  const different = keys.filter((key) => new Set(DATA.runs.map((run) => run.options[key])).size > 1);
  const header = ["option", ...DATA.runs.map((run) => run.name)];
  show("options-note", DATA.runs.length < 2 ? "" : different.length ? "These differ between the runs:" : "All options are the same.");
  if (different.length) show("differences", grid(header, lines(different, "options")));
  document.getElementById("differences").parentElement.hidden = !different.length;
  show("options", grid(header, lines(keys, "options")));
  show("versions", grid(["", ...DATA.runs.map((run) => run.name)], lines([...new Set(DATA.runs.flatMap((run) => Object.keys(run.versions)))], "versions")));
}

function drawStrips() {
  const strips = DATA.runs.flatMap((run) => run.strips.map((strip) => ({ run, ...strip })));
  document.getElementById("pictures").hidden = !strips.length;
  const groups = [...new Set(strips.map((strip) => `${strip.run.name}: ${strip.name}`))];
  show(
    "strips",
    groups.map((group) => [
      element("h3", {}, group),
      element("div", { class: "cards strips" }, strips.filter((strip) => `${strip.run.name}: ${strip.name}` === group).map((strip) => element("div", { class: "card still" }, element("img", { src: strip.picture, alt: "" }), element("p", {}, `iteration ${strip.iteration}`)))),
    ]),
  );
}

const finished = DATA.runs.map((run) => Math.max(0, ...Object.values(run.training).flat().map((point) => point[0])));
show("about", DATA.runs.length === 1 ? `One run, ${finished[0]} iterations.` : `${DATA.runs.length} runs, ${Math.min(...finished)} to ${Math.max(...finished)} iterations.`);
drawControls();
drawCurves();
drawTables();
drawStrips();
drawOptions();
