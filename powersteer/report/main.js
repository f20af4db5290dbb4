function fillPickers() {
  const measures = measuresOf(view.fields), measure = currentMeasure(), option = (m) => [m.id, m.label];
  fillSelect($("pick-view"), page.views.map((v, i) => [i, v.name]), state.view);
  const groups = [["Spectrum", measures.filter((m) => m.spectrum)], ["Effects of the vectors", measures.filter((m) => !m.spectrum)]];
  fillSelect($("pick-measure"), groups.filter(([, ms]) => ms.length).map(([group, ms]) => ({ group, options: ms.map(option) })), measure.id);
  fillSelect($("pick-rank"), [["max", "largest"], ...Array.from({ length: view.k }, (_, i) => [i, `${i}`])], state.rank);
  fillSelect($("pick-sign"), [[0, "larger of both"], [1, "+v"], [-1, "−v"]], state.sign);
  fillSelect($("pick-scale"), page.scales.map((x, i) => [i, String(x)]), state.scale);
  fillSelect($("pick-prompt"), [[-1, "mean over prompts"], ...view.steeredPrompts.map((p) => [p, page.prompts[p].name])], state.prompt);
  fillSelect($("pick-against"), [["none", "nothing"], ...(view.draws ? [["random", "random vectors"]] : [])], state.against);
  fillSelect($("pick-colours"), [["auto", "automatic"], ["linear", "linear"], ["log", "logarithmic"]], state.colours);
  $("effect-pickers").hidden = !view.fields.length;
}

function buildPickers() {
  const kinds = { view: Number, measure: String, rank: (x) => (x === "max" ? x : Number(x)), sign: Number, scale: Number, prompt: Number, against: String, colours: String };
  for (const [name, kind] of Object.entries(kinds)) {
    $(`pick-${name}`).addEventListener("change", (event) => {
      const patch = { [name]: kind(event.target.value) };
      if (patch.measure === "decay" && state.rank === 0) patch.rank = view.k - 1; // rank 0 over rank 0 says nothing
      update(patch).then(() => announce($("map-title").textContent));
    });
  }
  $("pickers").addEventListener("submit", (event) => event.preventDefault());
}

function buildAbout() {
  const row = ([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, typeof value === "object" && value !== null ? JSON.stringify(value) : String(value)));
  const facts = (name, entries) => el("table", { class: "facts-table" }, el("caption", {}, name), el("tbody", {}, entries.map(row)));
  $("about-body").append(
    el("p", {}, "Each cell holds the leading singular triplets of the Jacobian from one vector, added at every source position of the source layer, to the target. Its right singular vectors are the steering vectors. ",
      "σ of a layer target is in units of the target's activation per unit of the vector; σ of the next token is in √nats, so a push of length ε costs about ½σ²ε² nats while it stays linear. ",
      "The sign of a singular vector is arbitrary, so both are tried. Random vectors have the same length, at the same layer and site. What one prompt shows is about that prompt."),
    el("div", { class: "columns" },
      facts("Model", Object.entries(page.model)),
      facts("Settings", [...Object.entries(page.settings), ["powersteer", page.version], ["made", page.created]])),
    el("h3", {}, "Prompts"),
    ...page.prompts.map((p, i) => el("details", {}, el("summary", {}, `${i}: ${p.name}${p.n_tokens ? `, ${plural(p.n_tokens, "token")}` : ""}`), el("p", { class: "text" }, p.text))));
}

function buildTheme() {
  const order = ["", "light", "dark"], names = { "": "System colours", light: "Light", dark: "Dark" };
  const name = () => { $("theme").textContent = `Theme: ${names[document.documentElement.dataset.theme ?? ""]}`; };
  const repaint = () => { drawMap(); redrawCharts(); };
  $("theme").addEventListener("click", () => {
    const root = document.documentElement, next = order[(order.indexOf(root.dataset.theme ?? "") + 1) % order.length];
    if (next) root.dataset.theme = next; else delete root.dataset.theme;
    name();
    repaint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  // paper is white: charts and signed colours are drawn again for it
  matchMedia("print").addEventListener("change", repaint);
  name();
}

const MAPPED = ["view", "measure", "rank", "sign", "scale", "prompt", "against"];

function onChange(changed) {
  const some = (names) => names.some((name) => changed.has(name));
  if (some([...MAPPED, "colours"])) { fillPickers(); drawMap(); } else markChosen();
  if (some(["source", "target"])) announce(placeText(state.source, state.target));
  drawLater(changed);
}

// The slower parts wait for a pause, so that held arrow keys stay quick.
const waiting = { changed: new Set(), timer: 0 };
function drawLater(changed) {
  changed.forEach((name) => waiting.changed.add(name));
  clearTimeout(waiting.timer);
  waiting.timer = setTimeout(() => {
    const some = (names) => names.some((name) => waiting.changed.has(name));
    if (some([...MAPPED, "source", "target", "vector"])) { drawCell(); drawVector(); }
    if (some(MAPPED)) drawTable(); else drawRows();
    waiting.changed.clear();
  }, 30);
}

// The pair to begin with: the largest sigma of a layer target.
function firstPair() {
  let best = -1;
  for (let i = 0; i < view.n; i++) {
    const layer = typeof page.targets[view.cells.target[i]] !== "string";
    if (layer && (best < 0 || view.cells.sigma[i * view.k] > view.cells.sigma[best * view.k])) best = i;
  }
  best = Math.max(best, 0);
  return view.n ? { source: view.cells.source[best], target: view.cells.target[best] } : {};
}

async function main() {
  page = json(await block("index"));
  $("title").textContent = page.title;
  const m = page.model, words = [m.name, m.model_type, m.n_layers && `${m.n_layers} layers`, m.d_model && `width ${m.d_model}`, plural(page.prompts.length, "prompt")];
  $("facts").textContent = words.filter(Boolean).join(" · ");
  const asked = readFragment();
  await showView(asked.view ?? 0);
  Object.assign(state, { scale: Math.max(0, (page.scales.length - 1) >> 1) }, firstPair(), asked);
  if (!measuresOf(view.fields).some((x) => x.id === state.measure)) state.measure = "sigma";
  fitToView();
  buildMap();
  fillPickers();
  drawMap();
  document.querySelector("main").removeAttribute("aria-busy");
  performance.mark("map"); // the page can be read and used from here on
  buildPickers();
  buildTheme();
  buildCell();
  buildVector();
  buildTable();
  buildAbout();
  $("copy-link").addEventListener("click", (event) => { writeFragment(); copy(location.href, event.target); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.target.matches("input, select")) places[state.source][state.target].node.focus();
  });
  listeners.push(onChange);
  addEventListener("hashchange", () => { const asked = readFragment(); if (Object.keys(asked).length) update(asked); });
  requestAnimationFrame(() => setTimeout(() => {
    drawCell();
    drawVector();
    drawTable();
    loadPlotly().then(() => performance.mark("charts"));
  }));
}

main().catch((error) => {
  $("problem").textContent = `This page could not be shown: ${error.message}`;
  $("problem").hidden = false;
  throw error;
});
