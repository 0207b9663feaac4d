// The slider between any two results, and the images that a model does worst and best.

const kindsHere = () => Object.keys(chosenSet().pictures);
const shownImages = () => Object.keys(chosenSet().pictures.input || {}).map(Number).sort((one, other) => one - other);

const bestModel = () => [...measured()].sort((one, other) => compare(one.means[state.column], other.means[state.column], chosenColumn().better === "lower"))[0]?.model;

/** Go to the slider, with one model against the reference or the input. */
function see(number, model) {
  if (!picture("input", number)) return;
  change({ image: number, left: picture("reference", number) ? "reference" : "input", right: model });
  document.getElementById("compare").scrollIntoView({ behavior: "smooth" });
}

function drawSlider() {
  const kinds = kindsHere();
  const section = document.getElementById("compare");
  section.hidden = kinds.length < 2;
  if (section.hidden) return;
  state.left = kinds.includes(state.left) ? state.left : "input";
  state.right = kinds.includes(state.right) ? state.right : bestModel() || kinds[1];
  state.image = shownImages().includes(state.image) ? state.image : shownImages()[0];
  const options = kinds.map((kind) => [kind, kind]);
  const images = shownImages().map((number) => [number, chosenSet().images[number]]);
  show(
    "slider-controls",
    choice("Left", options, state.left, (value) => change({ left: value })),
    choice("Right", options, state.right, (value) => change({ right: value })),
    choice("Image", images, state.image, (value) => change({ image: Number(value) })),
  );
  const range = element("input", { type: "range", min: 0, max: 100, step: 0.1, value: state.at, "aria-label": "where the two pictures meet" });
  const place = show(
    "slider",
    element("img", { src: picture(state.right, state.image) || "", alt: state.right }),
    element("img", { class: "over", src: picture(state.left, state.image) || "", alt: state.left }),
    range, element("span", { class: "bar" }), element("span", { class: "tag left" }, state.left), element("span", { class: "tag right" }, state.right),
  );
  const move = () => {
    state.at = range.value;
    place.style.setProperty("--at", `${range.value}%`);
  };
  range.addEventListener("input", move);
  move();
  drawStrip();
  drawFigures();
}

function drawStrip() {
  const buttons = shownImages().map((number) => {
    const name = chosenSet().images[number];
    return element("button", { "aria-pressed": number === state.image, title: name, onclick: () => change({ image: number }) }, element("img", { src: picture("reference", number) || picture("input", number), alt: name }));
  });
  show("strip", buttons);
}

/** The figures of the image for both sides. */
function drawFigures() {
  const sides = [state.left, state.right].map((name) => measured().find((row) => row.model === name));
  const value = (row, index) => (row ? row.images[state.image]?.[index] ?? null : null);
  const lines = DATA.columns.map((column, index) => {
    const figures = sides.map((row) => value(row, index));
    const best = bestOf(figures, column.better);
    return element(
      "tr", {},
      element("td", {}, `${title(column.metric)} ${arrow(column)}`, element("span", { class: "sub" }, column.protocol)),
      figures.map((one) => element("td", { class: best !== undefined && one === best ? "best" : null }, amount(one, column))),
    );
  });
  const head = element("thead", {}, element("tr", {}, [chosenSet().images[state.image], state.left, state.right].map((text) => element("th", {}, text))));
  show("slider-figures", head, element("tbody", {}, lines));
}

function drawExtremes() {
  const names = measured().map((row) => row.model).filter((name) => name !== "input");
  if (!names.length || !shownImages().length) return;
  state.model = names.includes(state.model) ? state.model : bestModel() || names[0];
  show("extremes-controls", choice("Model", names.map((name) => [name, name]), state.model, (value) => change({ model: value })));
  const figures = ranked(measured().find((row) => row.model === state.model)).filter(([, number]) => picture("input", number));
  const count = Math.min(3, Math.max(1, Math.floor(figures.length / 2)));
  show("worst", figures.slice(-count).reverse().map(card));
  show("best", figures.slice(0, count).map(card));
}

function card([value, number]) {
  const pictures = ["input", state.model, "reference"].map((kind) => picture(kind, number)).filter(Boolean);
  return element(
    "div", { class: "card", onclick: () => see(number, state.model) },
    element("div", { class: "trio" }, pictures.map((source) => element("img", { src: source, alt: "" }))),
    element("p", {}, element("b", {}, chosenSet().images[number]), `  ${nameOf(chosenColumn())}: ${amount(value)}`),
  );
}

function draw() {
  drawControls();
  drawWords();
  drawTable();
  if (chosenColumn()) {
    drawScatter();
    drawSpread();
    drawSlider();
    drawExtremes();
  }
  drawMethod();
}

drawTableControls();
draw();
