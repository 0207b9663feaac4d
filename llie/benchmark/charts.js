// Quality against cost, and the figures of single images.

function drawScatter() {
  show("scatter-controls", choice("Cost", Object.entries(COSTS).map(([key, cost]) => [key, cost.title]), state.cost, (value) => change({ cost: value })));
  const cost = COSTS[state.cost];
  const points = measured()
    .map((row) => ({ row, x: costOf(row, state.cost), y: row.means[state.column] }))
    .filter((point) => point.x !== null && point.y !== null && point.y !== undefined);
  const without = measured().filter((row) => !points.some((point) => point.row === row)).map((row) => row.model).join(", ");
  const box = { left: 52, right: 600, top: 26, bottom: 320 };
  const x = scale(points.map((point) => point.x), [box.left + 14, box.right], true);
  const y = scale(points.map((point) => point.y), [box.bottom, box.top]);
  const size = points.length ? `, one image of ${points[0].row.cost.size.join("x")}` : "";
  const picture = shape(
    "svg", { viewBox: "0 0 620 360", role: "img", "aria-label": `${nameOf(chosenColumn())} against ${cost.title}` },
    axes(x, y, box, `${cost.title}${size} (logarithmic)`, `${nameOf(chosenColumn())} ${arrow(chosenColumn())}`, cost.text),
    frontier(points, x, y), points.map((point) => dot(point, x, y, cost)), labels(points, x, y, box),
  );
  const note = without ? element("p", { class: "note" }, `Not shown, as this cost is not known: ${without}.`) : [];
  show("scatter", picture, note);
}

function dot(point, x, y, cost) {
  const circle = shape("circle", { cx: x.to(point.x), cy: y.to(point.y), r: 6, fill: colourOf(point.row.model), class: "dot", "data-model": point.row.model });
  return tip(circle, `${point.row.model}\n${nameOf(chosenColumn())}: ${amount(point.y)}\n${cost.title}: ${cost.text(point.x)}`);
}

/** The line through models that no other one beats in both. */
function frontier(points, x, y) {
  const sign = chosenColumn().better === "higher" ? 1 : -1;
  const on = points.filter((one) => !points.some((other) => other !== one && other.x <= one.x && sign * other.y >= sign * one.y && (other.x < one.x || other.y !== one.y)));
  on.sort((one, other) => one.x - other.x);
  return on.length > 1 ? shape("polyline", { class: "frontier", points: on.map((point) => `${x.to(point.x)},${y.to(point.y)}`).join(" ") }) : null;
}

/** Names beside the dots, where they cover neither a dot nor another name. */
function labels(points, x, y, box) {
  const taken = points.map((point) => ({ left: x.to(point.x) - 7, right: x.to(point.x) + 7, top: y.to(point.y) - 7, bottom: y.to(point.y) + 7 }));
  return points.map((point) => {
    const [cx, cy, width] = [x.to(point.x), y.to(point.y), 7 * point.row.model.length];
    const places = [[cx + 10, cy + 4], [cx - 10 - width, cy + 4], [cx - width / 2, cy - 11], [cx - width / 2, cy + 20], [cx + 8, cy - 9], [cx + 8, cy + 18]];
    const areas = places.map(([left, base]) => ({ left, right: left + width, top: base - 11, bottom: base + 3 }));
    const free = areas.findIndex((area) => area.left > box.left && area.right < 618 && !taken.some((other) => area.left < other.right && other.left < area.right && area.top < other.bottom && other.top < area.bottom));
    const best = Math.max(free, 0);
    taken.push(areas[best]);
    return shape("text", { x: places[best][0], y: places[best][1], class: "name" }, point.row.model);
  });
}

function drawSpread() {
  const rows = measured().filter((row) => row.images.some((image) => image[state.column] !== null));
  const better = chosenColumn().better === "higher" ? -1 : 1;
  rows.sort((one, other) => better * ((one.means[state.column] ?? 0) - (other.means[state.column] ?? 0)));
  const widest = Math.max(60, ...rows.map((row) => 7 * row.model.length));
  const step = 34;
  const box = { left: widest + 12, right: 604, top: 20, bottom: 24 + step * rows.length };
  const all = rows.flatMap((row) => row.images.map((image) => image[state.column])).filter((value) => value !== null);
  const x = scale(all, [box.left, box.right]);
  const lines = rows.map((row, index) => spreadOf(row, x, box.top + step * (index + 0.5), box.left));
  show("spread", shape("svg", { viewBox: `0 0 620 ${box.bottom + 40}`, role: "img", "aria-label": "Figures of single images" }, axes(x, null, box, `${nameOf(chosenColumn())} ${arrow(chosenColumn())}`, ""), lines));
}

function spreadOf(row, x, y, left) {
  const figures = ranked(row).sort((one, other) => one[0] - other[0]);
  const at = (share) => {
    const place = share * (figures.length - 1);
    const [low, high] = [figures[Math.floor(place)][0], figures[Math.ceil(place)][0]];
    return x.to(low + (high - low) * (place - Math.floor(place)));
  };
  const colour = colourOf(row.model);
  const dots = figures.map(([value, number]) => {
    const circle = shape("circle", { cx: x.to(value), cy: y, r: 4, fill: colour, "fill-opacity": 0.75, class: "dot", onclick: () => see(number, row.model) });
    return tip(circle, `${row.model}, ${chosenSet().images[number]}\n${nameOf(chosenColumn())}: ${amount(value)}`);
  });
  return [
    shape("text", { x: left - 10, y: y + 4, "text-anchor": "end", class: "name" }, row.model),
    shape("rect", { x: at(0.25), y: y - 10, width: Math.max(1, at(0.75) - at(0.25)), height: 20, rx: 4, fill: colour, "fill-opacity": 0.16 }),
    shape("line", { x1: at(0.5), x2: at(0.5), y1: y - 11, y2: y + 11, stroke: colour, "stroke-width": 2.5 }),
    dots,
  ];
}
