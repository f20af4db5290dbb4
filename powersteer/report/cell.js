// The chosen pair: its certificates, its spectrum, and the effects of its vectors next to those of random vectors.
function buildCell() {
  $("cell-body").append(
    el("p", { id: "cell-facts", class: "facts" }),
    figure("spectrum", "Spectrum"),
    figure("cell-effects", "Effect by rank"),
    el("div", { class: "scroll" }, el("table", { id: "cell-vectors", class: "list" })),
  );
}

// The measure of effects in charts and lists: that of the map, or the first one.
function effectMeasure() {
  const measure = currentMeasure();
  return measure.spectrum ? measuresOf(view).find((m) => !m.spectrum) : measure;
}

function drawCell() {
  const cell = view.at(state.source, state.target);
  $("cell-title").textContent = pairName(state.source, state.target);
  for (const node of $("cell-body").children) node.hidden = cell < 0 && node.id !== "cell-facts";
  if (cell < 0) {
    $("cell-facts").replaceChildren("This pair has not been computed for these prompts.");
    return;
  }
  const c = view.cells, k = view.ranks(cell);
  const part = (name) => Array.from(c[name].subarray(cell * view.k, cell * view.k + k));
  const sigma = part("sigma"), residual = part("residual"), error = part("error");
  drawFacts(cell, residual);
  drawSpectrum(cell, sigma, residual, error);
  drawCellEffects(cell, k);
  drawCellVectors(cell, k, sigma, residual);
}

const METHODS = ["block Krylov", "dense", "sketch", "power iteration"];

// Ranks of a cluster of singular values, as [first, last].
function clusters(cell, k) {
  const found = [];
  for (let r = 0; r < k; r++) {
    const id = view.cells.cluster[cell * view.k + r];
    if (id < 0) continue;
    (found[id] ??= []).push(r);
  }
  return found.filter(Boolean);
}

const span = (ranks) => `${ranks[0]}–${ranks[ranks.length - 1]}`;

function drawFacts(cell, residual) {
  const c = view.cells, tol = page.settings.tol, k = residual.length, groups = clusters(cell, k);
  const worst = residual.reduce((a, b) => Math.max(a, b), -Infinity);
  const badge = c.converged[cell] ? el("span", { class: "badge good" }, "✓ certified") : el("span", { class: "badge bad" }, "! not converged");
  const facts = [
    ["method", METHODS[c.method[cell]] ?? "?"], ["applications of J or Jᵀ", String(c.applications[cell])],
    ["largest residual", `${show(worst)}${typeof tol === "number" ? ` (tolerance ${show(tol)})` : ""}`],
    ["activation norm at the source", show(c.site_norm[cell])],
    ["clusters", groups.length ? `ranks ${groups.map(span).join(", ")}: compare the subspaces, not the vectors` : "none"],
  ];
  if (c.cluster_open[cell]) facts.push(["last rank", "may form a cluster with the next one, which was not computed"]);
  $("cell-facts").replaceChildren(badge, ...facts.map(([name, value]) => el("span", { class: "fact" }, `${name} `, el("b", {}, value))));
}

function drawSpectrum(cell, sigma, residual, error) {
  const k = sigma.length, groups = clusters(cell, k), ranks = sigma.map((_, i) => i);
  const sketch = error.some(Number.isFinite);
  const bars = sketch ? error : residual.map((r) => r * sigma[0]);
  const next = typeof page.targets[state.target] === "string";
  const summary = `σ₁ ${show(sigma[0])}, σ${k} ${show(sigma[k - 1])}, ratio ${show(sigma[k - 1] / sigma[0])}. `
    + (sketch ? "Bars: interval of the sketch." : "Bars: residual × σ₁, which bounds the error of σ.")
    + (groups.length ? " Shaded: clusters." : "");
  drawChart("spectrum", summary, () => {
    const tol = page.settings.tol, [main, muted, accent] = [token("accent"), token("ink-2"), token("minus")];
    const size = ranks.map((r) => (r === state.vector ? 12 : 7));
    const shade = groups.map((g) => ({ type: "rect", xref: "x", yref: "paper", x0: g[0] - 0.4, x1: g[g.length - 1] + 0.4, y0: 0, y1: 1, fillcolor: faint(accent, 0.16), line: { width: 0 }, layer: "below" }));
    const limit = typeof tol === "number" ? [{ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y2", y0: tol, y1: tol, line: { color: muted, width: 1, dash: "dash" } }] : [];
    const logs = [...residual, tol].filter((x) => x > 0).map(Math.log10), low = Math.floor(Math.min(...logs, 0) - 0.1);
    const high = logs.length ? Math.max(...logs) + 0.2 : 0, step = Math.ceil((high - low) / 3); // decades, whole ones marked
    return {
      traces: [
        { x: ranks, y: sigma, error_y: { type: "data", array: bars, visible: true, color: main, thickness: 1.5 }, mode: "lines+markers", name: "σ", line: { color: main, width: 1.5 }, marker: { color: main, size },
          hovertemplate: "rank %{x}: σ %{y:.4g} ± %{error_y.array:.2g}<extra></extra>" },
        { x: ranks, y: residual, yaxis: "y2", mode: "markers", name: "residual", marker: { color: muted, symbol: "diamond", size: 6 }, hovertemplate: "rank %{x}: residual %{y:.2g} of σ₁<extra></extra>" },
      ],
      layout: {
        height: 280, shapes: [...shade, ...limit], showlegend: false,
        xaxis: { title: { text: "rank" }, dtick: k > 16 ? null : 1, range: [-0.5, k - 0.5], anchor: "y2" },
        yaxis: { title: { text: next ? "σ (√nats per unit)" : "σ" }, rangemode: "tozero", domain: [0.38, 1] },
        yaxis2: { title: { text: "residual" }, type: "log", domain: [0, 0.26], exponentformat: "power", range: [low, high], tick0: low, dtick: step },
      },
    };
  }, (rank) => pickVector(rank));
}

function drawCellEffects(cell, k) {
  const measure = effectMeasure(), node = $("cell-effects");
  node.hidden = !measure;
  if (!measure) return;
  node.querySelector("b").textContent = `${measure.label} by rank`;
  const ranks = Array.from({ length: k }, (_, i) => i);
  const of = (sign) => Array.from(view.ofVectors(measure.id, { ...currentPick(), sign }).subarray(cell * view.k, cell * view.k + k));
  const both = Object.fromEntries(SIGNS.map(({ sign }) => [sign, of(sign)]));
  const range = band(drawsOf(view, measure, currentPick())[state.source]), low = measure.signed ? range?.low : -Infinity;
  const beyond = range ? ranks.filter((r) => SIGNS.some(({ sign }) => both[sign][r] > range.high || both[sign][r] < low)).length : 0;
  const summary = `At ${strength(page, state.scale)}, ${state.prompt < 0 ? "mean over prompts" : page.prompts[state.prompt].name}. `
    + (range ? `Grey: ${plural(view.draws, "random vector")} of the same length, ${show(range.low)} to ${show(range.high)}; ${beyond} of ${k} vectors exceed all of them in one sign or both.` : "No random vectors were recorded here.");
  drawChart("cell-effects", summary, () => ({
    traces: [
      ...bandTraces(range ? [-0.5, k - 0.5].map((x) => ({ x, ...range })) : [], "random, range"),
      ...SIGNS.map(({ sign, name, colour, symbol }) => ({
        x: ranks, y: both[sign], mode: "markers", name, marker: { color: token(colour), symbol, size: ranks.map((r) => (r === state.vector ? 14 : 9)) },
        hovertemplate: `rank %{x}, ${name}: %{y:.3g}<extra></extra>`,
      })),
    ],
    layout: {
      xaxis: { title: { text: "rank" }, dtick: k > 16 ? null : 1, range: [-0.5, k - 0.5] },
      yaxis: { title: { text: measure.unit || measure.label }, rangemode: measure.signed ? "normal" : "tozero" },
    },
  }), (rank) => pickVector(rank));
}

function drawCellVectors(cell, k, sigma, residual) {
  const measure = effectMeasure(), groups = clusters(cell, k);
  const values = measure && SIGNS.map(({ sign }) => view.ofVectors(measure.id, { ...currentPick(), sign }));
  const gain = view.gains && view.cells.gain.subarray(cell * view.k, cell * view.k + k);
  const heads = ["rank", "σ", ...(gain ? ["gain"] : []), "residual", "cluster", ...(measure ? SIGNS.map(({ name }) => `${measure.label}, ${name}`) : [])];
  const row = (r) => el("tr", { "aria-current": r === state.vector ? "true" : null, onclick: () => pickVector(r) },
    el("td", {}, el("button", { type: "button", "aria-label": `Vector of rank ${r}`, onkeydown: (event) => { if (event.key === "Enter") setTimeout(() => $("vector-title").focus()); } }, String(r))),
    el("td", {}, show(sigma[r])), gain && el("td", {}, show(gain[r])), el("td", {}, show(residual[r])),
    el("td", {}, groups.filter((g) => g.includes(r)).map(span).join() || "–"),
    (values ?? []).map((all) => el("td", {}, show(all[cell * view.k + r]))));
  const focused = $("cell-vectors").contains(document.activeElement);
  $("cell-vectors").replaceChildren(
    el("caption", { class: "sr" }, `Vectors of ${pairName(state.source, state.target)}`),
    el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, sigma.map((_, r) => row(r))));
  if (focused) $("cell-vectors").querySelector("[aria-current] button")?.focus();
}

function pickVector(rank) {
  update({ vector: rank });
  $("vector").scrollIntoView({ block: "nearest", behavior: "smooth" });
}
