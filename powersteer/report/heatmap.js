// The maps: ARIA grids, source layers down, targets across. The second is shown while two are compared; it has its own
// measure, view and steered prompt, and shares rank, sign, scale and colours with the first.
const MAPS = [
  { key: "", shows: () => ({ view, measure: currentMeasure(), prompt: state.prompt }) },
  { key: "-2", shows: () => ({ view: secondView, measure: measureIn(secondView, state.compare), prompt: state.comparePrompt }) },
]; // and once drawn: places[source][target] = {node, value, state: "value" | "unmeasured" | "missing" | "none"}, scales, pick
const shownMaps = () => (state.compare ? MAPS : MAPS.slice(0, 1));
const part = (map, name) => $(`${name}${map.key}`);
const isNext = (t) => typeof page.targets[t] === "string";

function buildMap(map) {
  const head = el("tr", {}, el("th", { scope: "col", class: "corner" }, el("span", { class: "sr" }, "source \\ target")),
    page.targets.map((target, t) => el("th", { scope: "col", class: isNext(t) ? "next" : null, title: layerName(target) }, isNext(t) ? "next" : String(target))));
  map.places = page.sources.map((_, s) => page.targets.map((_, t) => ({ node: el("td", { role: "gridcell", tabindex: -1, "data-s": s, "data-t": t }) })));
  const body = page.sources.map((source, s) => el("tr", {}, el("th", { scope: "row" }, String(source)), map.places[s].map((place) => place.node)));
  const grid = part(map, "grid"), under = (event) => event.target.closest("td");
  grid.append(el("thead", {}, head), el("tbody", {}, body));
  grid.style.setProperty("--columns", page.targets.length);
  sizeMap(map);
  new ResizeObserver(() => sizeMap(map)).observe(part(map, "grid-box"));
  grid.addEventListener("click", (event) => choose(under(event)));
  grid.addEventListener("keydown", (event) => onMapKey(event, map));
  grid.addEventListener("pointerover", (event) => showReadout(under(event)));
  grid.addEventListener("focusin", (event) => showReadout(under(event)));
  grid.addEventListener("pointerleave", () => showReadout());
}

function sizeMap(map) {
  const width = part(map, "grid-box").clientWidth - 48, grid = part(map, "grid");
  const size = Math.max(12, Math.min(60, Math.floor(width / (page.targets.length + 0.6))));
  grid.style.setProperty("--cell", `${size}px`);
  grid.classList.toggle("numbers", size >= 36);
  grid.classList.toggle("dense", size < 18);
}

function drawMaps() {
  $("map-2").hidden = $("pickers-2").hidden = !state.compare;
  $("maps").classList.toggle("comparing", Boolean(state.compare));
  const maps = shownMaps();
  for (const map of maps) {
    if (!map.places) buildMap(map);
    const shown = map.shows();
    const pick = { ...state, prompt: shown.prompt, against: shown.view.draws ? state.against : "none" };
    Object.assign(map, shown, { pick, values: cellValues(shown.view, shown.measure, pick) });
  }
  for (const map of maps) {
    map.scales = scalesOf(maps.filter((other) => other.measure.id === map.measure.id)); // colours of one measure compare
    drawMap(map);
  }
  markChosen();
}

// {layers, next}: the colours of the layer targets and, if its unit is another, of next_token.
function scalesOf(maps) {
  const [{ measure, pick }] = maps;
  const options = { signed: measure.signed || (pick.against === "random" && !measure.spectrum), positive: measure.positive, kind: state.colours };
  const scale = (next) => colourScale(maps.flatMap(({ values, view: { cells } }) =>
    values.filter((_, i) => Boolean(measure.nextUnit && isNext(cells.target[i])) === next)), options);
  return { layers: scale(false), next: measure.nextUnit ? scale(true) : null };
}

function drawMap(map) {
  const { measure, pick, scales, values } = map, one = map.view;
  map.places.forEach((row, s) => row.forEach((place, t) => {
    const cell = one.at(s, t), value = cell < 0 ? NaN : values[cell], node = place.node;
    place.value = value;
    place.state = Number.isFinite(value) ? "value" : cell >= 0 ? "unmeasured" : possible(s, t) ? "missing" : "none";
    const shown = place.state === "value", scale = measure.nextUnit && isNext(t) ? scales.next : scales.layers;
    node.className = `${place.state}${isNext(t) ? " next" : ""}${cell >= 0 && !one.cells.converged[cell] ? " open" : ""}`;
    node.style.backgroundColor = shown ? scale.css(value) : "";
    node.style.color = shown ? scale.ink(value) : "";
    node.textContent = shown ? brief(value) : "";
    node.title = place.state === "none" ? reason(map, s, t) : "";
    node.setAttribute("aria-label", placeText(map, s, t));
  }));
  const random = pick.against === "random" && !measure.spectrum;
  part(map, "map-title").textContent = `${describe(measure, pick, page)}${state.compare && page.views.length > 1 ? `, of ${one.name}` : ""}`;
  part(map, "map-hint").textContent = `${measure.about}${random ? "; here minus " + (pick.rank === "max" ? "the largest of the random draws" : "the median of the random draws") + ` at the same source, scale and prompt${measure.signed && !pick.sign ? ", in size" : ""}` : ""}. Rows are source layers, columns targets.`;
  drawLegend(map);
}

const brief = (x) => (Math.abs(x) >= 1000 || (x !== 0 && Math.abs(x) < 0.001) ? x.toExponential(0) : Number(x.toPrecision(2)).toString()).replace("-", "−");

function placeText(map, s, t) {
  const place = map.places[s][t], cell = map.view.at(s, t);
  const what = { value: show(place.value), unmeasured: "not measured", missing: "not computed", none: "no such pair" }[place.state];
  return `${pairName(s, t)}: ${what}${cell >= 0 && !map.view.cells.converged[cell] ? ", not converged" : ""}`;
}

const reason = (map, s, t) => `${placeText(map, s, t)}: ${whyImpossible(s, t)}`;

function drawLegend(map) {
  const { measure, scales } = map;
  const bar = (scale, name, unit) => {
    if (!scale) return null;
    const place = scale.ticks.length === 1 ? ["50%"] : scale.ticks.map((_, i) => `${25 * i}%`);
    return el("div", { class: "bar", role: "img", "aria-label": `Colours of ${name}, ${scale.log ? "logarithmic" : "linear"}: from ${show(scale.low)} to ${show(scale.high)} ${unit}` },
      el("span", { class: "bar-name" }, `${name}${scale.log ? ", logarithmic" : ""}`),
      el("span", { class: "ramp", style: `background: linear-gradient(90deg, ${scale.stops.join(", ")})` }),
      el("span", { class: "ticks" }, scale.ticks.map((x, i) => el("span", { style: `left: ${place[i]}` }, show(x)))));
  };
  const key = (kind, text) => (part(map, "grid").querySelector(`td.${kind}`) ? el("span", { class: "key" }, el("span", { class: `swatch ${kind}` }), text) : null);
  part(map, "legend").replaceChildren(...[
    bar(scales.layers, scales.next ? `layer targets (${measure.unit})` : measure.unit || measure.label, measure.unit),
    bar(scales.next, `next token (${measure.nextUnit})`, measure.nextUnit),
    el("div", { class: "keys" }, key("missing", "not computed"), key("unmeasured", "not measured"), key("open", "not converged")),
  ].filter(Boolean));
}

function markChosen() {
  for (const { places, key } of shownMaps()) {
    $(`grid${key}`).querySelectorAll("[aria-selected=true], [tabindex='0']").forEach((node) => { node.removeAttribute("aria-selected"); node.tabIndex = -1; });
    const { node } = places[state.source][state.target];
    node.setAttribute("aria-selected", "true");
    node.tabIndex = 0;
  }
  showReadout();
}

// The readout of every map: the pair under the pointer, which is also marked in the other map, or else the chosen pair.
function showReadout(node) {
  const [s, t] = node ? [Number(node.dataset.s), Number(node.dataset.t)] : [state.source, state.target];
  for (const map of shownMaps()) {
    part(map, "readout").textContent = (possible(s, t) ? placeText : reason)(map, s, t);
    part(map, "grid").querySelectorAll(".twin").forEach((other) => other.classList.remove("twin"));
    const twin = map.places[s][t].node;
    if (node && twin !== node) twin.classList.add("twin");
  }
}

function choose(node) {
  if (!node || node.classList.contains("none")) return;
  node.focus({ preventScroll: true });
  update({ source: Number(node.dataset.s), target: Number(node.dataset.t) });
}

// Arrow keys walk over pairs that exist; Enter goes on to the cell's vectors.
function onMapKey(event, { places }) {
  const node = event.target.closest("td");
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = {
    ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
    Home: [0, -Infinity], End: [0, Infinity], PageUp: [-Infinity, 0], PageDown: [Infinity, 0],
  }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    choose(node);
    $("cell-body").querySelector("tbody button")?.focus();
  } else if (step) {
    event.preventDefault();
    choose(walk(places, Number(node.dataset.s), Number(node.dataset.t), ...step));
  }
}

function walk(places, s, t, ds, dt) {
  const far = !Number.isFinite(ds) || !Number.isFinite(dt);
  let found = null;
  for (let a = s + Math.sign(ds), b = t + Math.sign(dt); places[a]?.[b]; a += Math.sign(ds), b += Math.sign(dt)) {
    if (places[a][b].state === "none") continue;
    found = places[a][b].node;
    if (!far) break;
  }
  return found;
}
