// The map: an ARIA grid, source layers down, targets across.
const places = []; // places[source][target] = {node, value, state: "value" | "unmeasured" | "missing" | "none"}
let mapScales; // {layers, next}: the colours of the layer targets and, if its unit is another, of next_token

function buildMap() {
  const head = el("tr", {}, el("th", { scope: "col", class: "corner" }, el("span", { class: "sr" }, "source \\ target")),
    page.targets.map((t) => el("th", { scope: "col", class: typeof t === "string" ? "next" : null, title: layerName(t) }, typeof t === "string" ? "next" : String(t))));
  const body = page.sources.map((source, s) => {
    places[s] = page.targets.map((target, t) => ({ node: el("td", { role: "gridcell", tabindex: -1, "data-s": s, "data-t": t, class: typeof target === "string" ? "next" : null }) }));
    return el("tr", {}, el("th", { scope: "row" }, String(source)), places[s].map((place) => place.node));
  });
  $("grid").append(el("thead", {}, head), el("tbody", {}, body));
  sizeMap();
  new ResizeObserver(sizeMap).observe($("grid-box"));
  $("grid").addEventListener("click", (event) => choose(event.target.closest("td")));
  $("grid").addEventListener("keydown", onMapKey);
  $("grid").addEventListener("pointerover", (event) => showReadout(event.target.closest("td")));
  $("grid").addEventListener("focusin", (event) => showReadout(event.target.closest("td")));
  $("grid").addEventListener("pointerleave", () => showReadout(places[state.source][state.target].node));
}

function sizeMap() {
  const width = $("grid-box").clientWidth - 48;
  const size = Math.max(12, Math.min(60, Math.floor(width / (page.targets.length + 0.6))));
  $("grid").style.setProperty("--cell", `${size}px`);
  $("grid").classList.toggle("numbers", size >= 36);
  $("grid").classList.toggle("dense", size < 18);
}

function drawMap() {
  const measure = currentMeasure();
  const values = cellValues(view, measure, state);
  const split = measure.id === "sigma"; // sigma of next_token is in another unit than that of a layer
  const own = (t) => split && typeof page.targets[t] === "string";
  const options = { signed: measure.signed || (state.against === "random" && !measure.spectrum), positive: measure.positive, kind: state.colours };
  const scaleOf = (next) => colourScale(values.filter((_, i) => own(view.cells.target[i]) === next), options);
  mapScales = { layers: scaleOf(false), next: split ? scaleOf(true) : null };
  places.forEach((row, s) => row.forEach((place, t) => {
    const cell = view.at(s, t), value = cell < 0 ? NaN : values[cell];
    const scale = own(t) ? mapScales.next : mapScales.layers;
    const possible = typeof page.targets[t] === "string" || page.targets[t] > page.sources[s];
    place.value = value;
    place.state = Number.isFinite(value) ? "value" : cell >= 0 ? "unmeasured" : possible ? "missing" : "none";
    const node = place.node, shown = place.state === "value";
    node.className = `${place.state}${typeof page.targets[t] === "string" ? " next" : ""}${cell >= 0 && !view.cells.converged[cell] ? " open" : ""}`;
    node.style.backgroundColor = shown ? scale.css(value) : "";
    node.style.color = shown ? scale.ink(value) : "";
    node.textContent = shown ? brief(value) : "";
    node.setAttribute("aria-label", placeText(s, t));
  }));
  $("map-title").textContent = describe(measure, state, page);
  $("map-hint").textContent = `${measure.about}${state.against === "random" && !measure.spectrum ? "; here minus " + (state.rank === "max" ? "the largest of the random draws" : "the median of the random draws") + ` at the same source, scale and prompt${measure.signed && !state.sign ? ", in size" : ""}` : ""}. Rows are source layers, columns targets.`;
  drawLegend(measure);
  markChosen();
}

const brief = (x) => (Math.abs(x) >= 1000 || (x !== 0 && Math.abs(x) < 0.001) ? x.toExponential(0) : Number(x.toPrecision(2)).toString()).replace("-", "−");

function placeText(s, t) {
  const place = places[s][t], cell = view.at(s, t);
  const what = { value: show(place.value), unmeasured: "not measured", missing: "not computed", none: "no such pair" }[place.state];
  return `${pairName(s, t)}: ${what}${cell >= 0 && !view.cells.converged[cell] ? ", not converged" : ""}`;
}

function drawLegend(measure) {
  const bar = (scale, name) => {
    if (!scale) return null;
    const place = scale.ticks.length === 1 ? ["50%"] : scale.ticks.map((_, i) => `${25 * i}%`);
    return el("div", { class: "bar", role: "img", "aria-label": `Colours of ${name}, ${scale.log ? "logarithmic" : "linear"}: from ${show(scale.low)} to ${show(scale.high)} ${measure.unit}` },
      el("span", { class: "bar-name" }, `${name}${scale.log ? ", logarithmic" : ""}`),
      el("span", { class: "ramp", style: `background: linear-gradient(90deg, ${scale.stops.join(", ")})` }),
      el("span", { class: "ticks" }, scale.ticks.map((x, i) => el("span", { style: `left: ${place[i]}` }, show(x)))));
  };
  const key = (kind, text) => (document.querySelector(`#grid td.${kind}`) ? el("span", { class: "key" }, el("span", { class: `swatch ${kind}` }), text) : null);
  $("legend").replaceChildren(...[
    bar(mapScales.layers, mapScales.next ? `layer targets (${measure.unit})` : measure.unit || measure.label),
    bar(mapScales.next, "next token (√nats per unit of v)"),
    el("div", { class: "keys" }, key("missing", "not computed"), key("unmeasured", "not measured"), key("open", "not converged")),
  ].filter(Boolean));
}

function markChosen() {
  $("grid").querySelectorAll("[aria-selected=true], [tabindex='0']").forEach((node) => { node.removeAttribute("aria-selected"); node.tabIndex = -1; });
  const { node } = places[state.source][state.target];
  node.setAttribute("aria-selected", "true");
  node.tabIndex = 0;
  showReadout(node);
}

function showReadout(node) {
  if (node) $("readout").textContent = placeText(Number(node.dataset.s), Number(node.dataset.t));
}

function choose(node) {
  if (!node || node.classList.contains("none")) return;
  node.focus({ preventScroll: true });
  update({ source: Number(node.dataset.s), target: Number(node.dataset.t) });
}

// Arrow keys walk over pairs that exist; Enter goes on to the cell's vectors.
function onMapKey(event) {
  const node = event.target.closest("td");
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = {
    ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
    Home: [0, -Infinity], End: [0, Infinity], PageUp: [-Infinity, 0], PageDown: [Infinity, 0],
  }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    update({ source: Number(node.dataset.s), target: Number(node.dataset.t) });
    $("cell-body").querySelector("tbody button")?.focus();
  } else if (step) {
    event.preventDefault();
    choose(walk(Number(node.dataset.s), Number(node.dataset.t), ...step));
  }
}

function walk(s, t, ds, dt) {
  const far = !Number.isFinite(ds) || !Number.isFinite(dt);
  let found = null;
  for (let a = s + Math.sign(ds), b = t + Math.sign(dt); places[a]?.[b]; a += Math.sign(ds), b += Math.sign(dt)) {
    if (places[a][b].state === "none") continue;
    found = places[a][b].node;
    if (!far) break;
  }
  return found;
}
