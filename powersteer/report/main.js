function fillPickers() {
  fillMapPickers(view, { view: "view", measure: "measure", prompt: "prompt" });
  if (secondView) fillMapPickers(secondView, { view: "compareView", measure: "compare", prompt: "comparePrompt" });
  fillSelect($("pick-rank"), [["max", "largest"], ...Array.from({ length: view.k }, (_, i) => [i, `${i}`])], state.rank);
  fillSelect($("pick-sign"), [[0, "larger of both"], [1, "+v"], [-1, "−v"]], state.sign);
  $("pick-scale").previousSibling.textContent = byKl(page) ? "KL " : "Scale ";
  fillSelect($("pick-scale"), page.scales.map((x, i) => [i, String(x)]), state.scale);
  fillSelect($("pick-against"), [["none", "nothing"], ...(view.draws ? [["random", "random vectors"]] : [])], state.against);
  fillSelect($("pick-colours"), [["auto", "automatic"], ["linear", "linear"], ["log", "logarithmic"]], state.colours);
  $("effect-pickers").hidden = !view.fields.length;
  $("compare").setAttribute("aria-pressed", String(Boolean(state.compare)));
}

// The pickers that each map has for itself; names: the pickers by the part of the state that they set.
function fillMapPickers(one, names) {
  const measures = measuresOf(one), option = (m) => [m.id, m.label];
  const groups = [["Spectrum", measures.filter((m) => m.spectrum)], ["Effects of the vectors", measures.filter((m) => !m.spectrum)]];
  fillSelect($(`pick-${names.view}`), page.views.map((v, i) => [i, v.name]), one.number);
  fillSelect($(`pick-${names.measure}`), groups.filter(([, ms]) => ms.length).map(([group, ms]) => ({ group, options: ms.map(option) })), measureIn(one, state[names.measure]).id);
  fillSelect($(`pick-${names.prompt}`), [[-1, "mean over prompts"], ...one.steeredPrompts.map((p) => [p, page.prompts[p].name])], state[names.prompt]);
  $(`pick-${names.prompt}`).parentNode.hidden = !one.fields.length;
}

// The second map starts with the other kind of measure: the spectrum next to an effect, an effect next to the spectrum.
function toggleCompare() {
  const now = currentMeasure(), others = measuresOf(view).filter((m) => m.id !== now.id);
  const first = (now.spectrum ? others.find((m) => !m.spectrum) : others.find((m) => m.id === "gain")) ?? others[0];
  update(state.compare ? { compare: "" } : { compare: first.id, compareView: state.view, comparePrompt: state.prompt });
}

function buildPickers() {
  const kinds = { view: Number, measure: String, rank: (x) => (x === "max" ? x : Number(x)), sign: Number, scale: Number, prompt: Number, against: String, colours: String, compare: String, compareView: Number, comparePrompt: Number };
  for (const [name, kind] of Object.entries(kinds)) {
    $(`pick-${name}`).addEventListener("change", (event) => {
      const patch = { [name]: kind(event.target.value) };
      if (patch.measure === "decay" && state.rank === 0) patch.rank = view.k - 1; // rank 0 over rank 0 says nothing
      update(patch).then(() => announce($(name.startsWith("compare") ? "map-title-2" : "map-title").textContent));
    });
  }
  $("compare").addEventListener("click", toggleCompare);
  for (const id of ["pickers", "pickers-2"]) $(id).addEventListener("submit", (event) => event.preventDefault());
}

function buildAbout() {
  const row = ([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, typeof value === "object" && value !== null ? JSON.stringify(value) : String(value)));
  const facts = (name, entries) => el("table", { class: "facts-table" }, el("caption", {}, name), el("tbody", {}, entries.map(row)));
  $("about-body").append(
    el("p", {}, "Each cell holds the leading singular triplets of the Jacobian from one vector, added at every source position of the source layer, to the target. Its right singular vectors are the steering vectors. ",
      "σ of a layer target is in units of the target's activation per unit of the vector; σ of the next token is in √nats, so a push of length ε costs about ½σ²ε² nats while it stays linear. ",
      "Gain is σ × the mean activation norm at the source ÷ the norm of the target over all its rows, which compares targets of different size; of the next token it is σ × the source norm, in √nats. ",
      "The sign of a singular vector is arbitrary, so both are tried. Random vectors have the same length, at the same layer and site. What one prompt shows is about that prompt."),
    el("div", { class: "columns" },
      facts("Model", Object.entries(page.model)),
      facts("Settings", [...Object.entries(page.settings), ["powersteer", page.version], ["made", page.created]])),
    el("h3", {}, "Prompts"),
    ...page.prompts.map((p, i) => el("details", {}, el("summary", {}, `${i}: ${p.name}${p.n_tokens ? `, ${plural(p.n_tokens, "token")}` : ""}`), el("p", { class: "text" }, lines(p.text)))));
}

function buildTheme() {
  const order = ["", "light", "dark"], names = { "": "System colours", light: "Light", dark: "Dark" };
  const name = () => { $("theme").textContent = `Theme: ${names[document.documentElement.dataset.theme ?? ""]}`; };
  const repaint = () => { drawMaps(); redrawCharts(); };
  $("theme").addEventListener("click", () => {
    const root = document.documentElement, next = order[(order.indexOf(root.dataset.theme ?? "") + 1) % order.length];
    if (next) root.dataset.theme = next; else delete root.dataset.theme;
    name();
    repaint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  // paper is white: charts and signed colours are drawn again for it
  matchMedia("print").addEventListener("change", (event) => { forPaper(event.matches); repaint(); });
  addEventListener("beforeprint", () => forPaper(true));
  addEventListener("afterprint", () => { forPaper(false); repaint(); });
  name();
}

// On paper all details are open, and charts are as wide as the paper.
function forPaper(on) {
  for (const node of document.querySelectorAll(on ? "details:not([open])" : "details[data-closed]")) {
    node.open = on;
    node.toggleAttribute("data-closed", on);
  }
  for (const place of document.querySelectorAll(".chart")) stretchChart(place, on);
}

const MAPPED = ["view", "measure", "rank", "sign", "scale", "prompt", "against"];
const COMPARED = ["compare", "compareView", "comparePrompt"];

function onChange(changed) {
  const some = (names) => names.some((name) => changed.has(name));
  if (some([...MAPPED, ...COMPARED, "colours"])) { fillPickers(); drawMaps(); } else markChosen();
  if (some(["source", "target"])) announce(placeText(MAPS[0], state.source, state.target));
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

// The first measure, an effect if there is one, of the first rank with a value; and the pair with the largest value: of the
// spectrum the largest of the layers, since the next token has another unit.
function beginning(asked) {
  const measure = asked.measure ?? (measuresOf(view).find((m) => !m.spectrum) ?? measuresOf(view)[0]).id;
  const pick = { ...state, ...asked, measure }, shown = measureIn(view, measure);
  const values = (rank) => cellValues(view, shown, { ...pick, rank });
  if (asked.rank === undefined && !values(0).some(Number.isFinite)) pick.rank = "max";
  const size = values(pick.rank).map((x, i) => (shown.nextUnit && typeof page.targets[view.cells.target[i]] === "string" ? NaN : Math.abs(x)));
  const best = Math.max(0, size.indexOf(largest(size)));
  const own = vectorValues(view, shown, pick).slice(best * view.k, (best + 1) * view.k);
  const vector = pick.rank === "max" ? Math.max(0, own.indexOf(largest(own))) : 0;
  return { measure, rank: pick.rank, ...(view.n ? { source: view.cells.source[best], target: view.cells.target[best], vector } : {}) };
}

async function main() {
  page = json(await block("index"));
  page.possible = new Set(page.pairs.map((pair) => pair.join(" ")));
  $("title").textContent = page.title;
  const m = page.model, words = [m.name, m.model_type, m.n_layers && `${m.n_layers} layers`, m.d_model && `width ${m.d_model}`, plural(page.prompts.length, "prompt")];
  $("facts").textContent = words.filter(Boolean).join(" · ");
  const { patch: asked, unknown } = readFragment(), { source, target, ...rest } = asked;
  const withEffects = page.views.findIndex((v) => v.fields.length);
  Object.assign(state, { scale: Math.max(0, (page.scales.length - 1) >> 1), view: Math.max(0, withEffects) }, rest);
  (await showViews())();
  if (!measuresOf(view).some((x) => x.id === rest.measure)) delete rest.measure;
  Object.assign(state, beginning(rest), rest);
  Object.assign(state, linkable({ ...rest, source, target }, unknown));
  fitToView();
  fillPickers();
  drawMaps();
  answerLink(unknown);
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
    if (event.key === "Escape" && !event.target.matches("input, select")) MAPS[0].places[state.source][state.target].node.focus();
  });
  listeners.push(onChange);
  addEventListener("hashchange", followLink);
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
