// What is chosen, and what follows from it. Every panel draws itself again when a choice changes.

const state = {
  dataset: DATA.datasets[0].name, column: 0, sort: "chosen", ascending: null, filter: "", hidden: new Set(), open: new Set(),
  cost: "latency", image: 0, left: null, right: null, at: 50, model: null,
};

const TITLES = {
  psnr: "PSNR", ssim: "SSIM", ms_ssim: "MS-SSIM", lpips: "LPIPS", dists: "DISTS", niqe: "NIQE", brisque: "BRISQUE", mae: "MAE",
  delta_e: "ΔE 2000", loe: "LOE",
};
const DECIMALS = { psnr: 2, ssim: 3, ms_ssim: 3, lpips: 3, dists: 3, delta_e: 2, niqe: 2, brisque: 1, loe: 0 };
const COSTS = {
  latency: { title: "Latency", of: (cost) => cost.latency.median * 1000, text: (value) => `${figure3(value)} ms` },
  macs: { title: "MACs", of: (cost) => cost.macs, text: (value) => short(value) },
  parameters: { title: "Parameters", of: (cost) => cost.parameters, text: (value) => short(value) },
  memory: { title: "Peak memory", of: (cost) => cost.peak_memory, text: (value) => `${Math.round(value / 2 ** 20)} MiB` },
};

function figure3(value) {
  return value >= 1000 ? value.toFixed(0) : Number(value.toPrecision(3)).toString();
}

const models = [...new Set(DATA.rows.map((row) => row.model))];
const colourOf = (model) => COLOURS[models.indexOf(model) % COLOURS.length];
const title = (metric) => TITLES[metric] || metric;
const arrow = (column) => (column.better === "higher" ? "↑" : "↓");
const amount = (value, column = chosenColumn()) => figure(value, DECIMALS[column.metric]);
const nameOf = (column) => `${title(column.metric)} ${column.protocol}`;
const chosenColumn = () => DATA.columns[state.column];
const chosenSet = () => DATA.datasets.find((set) => set.name === state.dataset);
const rowsHere = () => DATA.rows.filter((row) => row.dataset === state.dataset);
const measured = () => rowsHere().filter((row) => !row.error);
const costOf = (row, name) => (row.cost ? COSTS[name].of(row.cost) : null);
const picture = (kind, number) => (chosenSet().pictures[kind] || {})[number];

/** [value, number of the image] of a row in the chosen column, best first. */
function ranked(row) {
  const better = chosenColumn().better === "higher" ? -1 : 1;
  const figures = row.images.map((image, number) => [image[state.column], number]).filter(([value]) => value !== null);
  return figures.sort((one, other) => better * (one[0] - other[0]));
}

function change(values) {
  Object.assign(state, values);
  draw();
}

function drawControls() {
  const sets = DATA.datasets.map((set) => [set.name, set.name]);
  const columns = DATA.columns.map((column, index) => [index, `${nameOf(column)} ${arrow(column)}`]);
  show(
    "controls",
    choice("Data set", sets, state.dataset, (value) => change({ dataset: value, image: 0, left: null, right: null, model: null })),
    columns.length ? choice("Figure", columns, state.column, (value) => change({ column: Number(value), sort: "chosen", ascending: null })) : [],
  );
}

function drawWords() {
  const column = chosenColumn();
  show("conditions", chosenSet().conditions);
  if (!column) return;
  const helped = (DATA.protocols[column.protocol] || []).some((step) => step.startsWith("match_"));
  show(
    "protocol",
    element("b", {}, nameOf(column)), `: ${column.better} is better. `,
    helped
      ? "The result is first scaled to the brightness of the reference. That flatters: compare it only with figures made the same way."
      : "Plain: nothing of the reference is used to change the result before it is scored.",
  );
}

function drawMethod() {
  const { llie, torch, python } = DATA.versions;
  const protocols = Object.entries(DATA.protocols).map(([name, steps]) => [element("dt", {}, name), element("dd", {}, steps.join(", then "))]);
  show(
    "method",
    element("p", {}, `Written by llie ${llie} with PyTorch ${torch} and Python ${python}. Figures are means over ${DATA.average === "folder" ? "the means of folders" : "images"}. Each protocol prepares result and reference in these steps:`),
    element("dl", {}, protocols.flat()),
    element("p", {}, "MACs are counted on one image of the size given above: products of matrices, convolutions, attention, scans and bilinear reads. Latency is the median of repeated runs after warm-up; memory is what the process needed beyond what it held before it loaded the network. Both belong to the machine named above."),
  );
}
