// Elements, scales and axes, shared by all pages.

const COLOURS = ["#3452c7", "#e0732b", "#1b9e77", "#c2387a", "#7a59c8", "#a07d00", "#1596b8", "#b3403a", "#5f7a2d", "#666f7d"];

/** Make an element: element("td", {class: "best", onclick: f}, "text", child ...). */
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  return fill(node, attributes, children);
}

/** The same for SVG. */
function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

/** Replace what is in the element with that id. */
function show(id, ...children) {
  const place = document.getElementById(id);
  place.replaceChildren(...children.flat(Infinity));
  return place;
}

/** A labelled list of choices: [[value, text] ...]. */
function choice(label, options, value, chosen) {
  const list = element("select", { onchange: () => chosen(list.value) });
  for (const [key, text] of options) list.append(element("option", { value: key }, text));
  list.value = value;
  return element("label", {}, label, list);
}

/** Text that follows the pointer over an element. */
function tip(node, text) {
  const box = document.getElementById("tip") || document.body.appendChild(element("div", { id: "tip", role: "status" }));
  node.addEventListener("pointermove", (event) => {
    box.textContent = text;
    box.style.left = `${Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8)}px`;
    box.style.top = `${Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8)}px`;
    box.classList.add("on");
  });
  node.addEventListener("pointerleave", () => box.classList.remove("on"));
  return node;
}

/** 0.8362, 18.80, 1.2e+9: as many digits as one reads, or so many decimals. */
function figure(value, decimals) {
  if (value === null || value === undefined) return "–";
  if (decimals !== undefined) return value.toFixed(decimals);
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-4)) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(0) : size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2) : value.toFixed(4);
}

/** 850324 -> "850 k". */
function short(value, unit = "") {
  if (value === null || value === undefined) return "–";
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [size, letter] = steps.find(([size]) => Math.abs(value) >= size) || [1, ""];
  const number = value / size;
  const text = letter === "" ? String(Math.round(number)) : number >= 100 ? number.toFixed(0) : number.toPrecision(3);
  return `${text} ${letter}${unit}`.trim();
}

const plain = (value) => String(Number(value.toPrecision(6)));

/** About `count` round numbers within [low, high]. */
function roundTicks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

/** From values to pixels: linear, or logarithmic, where what is not positive stands at the edge. */
function scale(values, [start, end], logarithmic = false) {
  const known = values.filter((value) => Number.isFinite(value) && (!logarithmic || value > 0));
  let low = Math.min(...known);
  let high = Math.max(...known);
  if (!known.length) [low, high] = [logarithmic ? 1 : 0, logarithmic ? 10 : 1];
  if (logarithmic) {
    [low, high] = [low / 1.6, high * 1.6];
    const to = (value) => (value > 0 ? start + (Math.log(value / low) / Math.log(high / low)) * (end - start) : start);
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const digit of high / low < 200 ? [1, 2, 5] : [1]) ticks.push(digit * 10 ** power);
    }
    return { to, ticks: ticks.filter((tick) => tick >= low && tick <= high) };
  }
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - room, high + room];
  return { to: (value) => start + ((value - low) / (high - low)) * (end - start), ticks: roundTicks(low, high) };
}

/** Grid lines and numbers of both axes, as SVG shapes. */
function axes(x, y, box, xText, yText, xFormat = plain, yFormat = plain) {
  const parts = [];
  for (const tick of x ? x.ticks : []) {
    const at = x.to(tick);
    parts.push(shape("line", { x1: at, x2: at, y1: box.top, y2: box.bottom, class: "grid" }));
    parts.push(shape("text", { x: at, y: box.bottom + 16, class: "tick", "text-anchor": "middle" }, xFormat(tick)));
  }
  for (const tick of y ? y.ticks : []) {
    const at = y.to(tick);
    parts.push(shape("line", { x1: box.left, x2: box.right, y1: at, y2: at, class: "grid" }));
    parts.push(shape("text", { x: box.left - 8, y: at + 4, class: "tick", "text-anchor": "end" }, yFormat(tick)));
  }
  if (xText) parts.push(shape("text", { x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, xText));
  if (yText) parts.push(shape("text", { x: box.left, y: box.top - 8, "text-anchor": "start" }, yText));
  return parts;
}
