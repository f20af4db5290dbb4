// The chosen vector: its effects by scale, and steered continuations next to the base ones.
function buildVector() {
  $("vector-body").append(
    el("p", { id: "vector-facts", class: "facts" }),
    el("div", { class: "columns" },
      figure("vector-effects", "Effect by scale"),
      el("div", { id: "reproduce" },
        el("h3", {}, "Reproduce in Python"), el("pre", { tabindex: 0, "aria-label": "Python" }, el("code", { id: "python" })),
        el("button", { type: "button", id: "copy-python", onclick: (event) => copy($("python").textContent, event.target) }, "Copy Python"))),
    el("div", { class: "text-head" }, el("h3", { id: "texts-title" }, "Continuations"), el("label", {}, "Prompt ", el("select", { id: "text-prompt", onchange: (event) => { textPrompt = Number(event.target.value); drawTexts(); } }))),
    el("blockquote", {}, el("p", { id: "prompt-text", class: "text", "aria-label": "Prompt" })),
    el("div", { id: "prompt-more" }),
    el("div", { id: "base-samples" }),
    el("div", { id: "texts" }),
    el("details", { id: "random-texts", }, el("summary", {}, "Random vectors of the same length"), el("div", {})),
  );
}

let textPrompt; // the prompt whose continuations are shown: one of the view's steered prompts

function drawVector() {
  const cell = view.at(state.source, state.target);
  $("vector").hidden = cell < 0;
  if (cell < 0) return;
  const rank = Math.min(state.vector, view.ranks(cell) - 1), sigma = view.cells.sigma[cell * view.k + rank];
  $("vector-title").textContent = `Vector ${pairName(state.source, state.target).replace("Layer", "layer")}, rank ${rank}`;
  const beside = clusters(cell, view.ranks(cell)).find((g) => g.includes(rank));
  $("vector-facts").replaceChildren(...[
    ["σ", show(sigma)], ...(view.gains ? [["gain", gainText(cell, rank)]] : []), ["σ / σ₁", show(sigma / view.cells.sigma[cell * view.k])], ["residual", show(view.cells.residual[cell * view.k + rank])],
  ].map(([name, value]) => el("span", { class: "fact" }, `${name} `, el("b", {}, value))),
  ...(beside ? [el("span", { class: "badge bad" }, `in the cluster of ranks ${span(beside)}: another run may return another mixture`)] : []));
  drawVectorEffects(cell, rank);
  const prompts = view.steeredPrompts.length ? view.steeredPrompts : view.prompts;
  if (state.prompt >= 0) textPrompt = state.prompt;
  if (!prompts.includes(textPrompt)) textPrompt = prompts[0];
  fillSelect($("text-prompt"), prompts.map((p) => [p, page.prompts[p].name]), textPrompt);
  drawTexts();
}

function gainText(cell, rank) {
  const next = typeof page.targets[state.target] === "string";
  return `${show(view.cells.gain[cell * view.k + rank])}${next ? " √nats" : ""}`;
}

function drawVectorEffects(cell, rank) {
  const measure = effectMeasure();
  $("vector-effects").hidden = !measure;
  if (!measure) return;
  $("vector-effects").querySelector("b").textContent = `${measure.label} by ${byKl(page) ? "KL budget" : "scale"}`;
  const at = (sign, scale) => view.ofVectors(measure.id, { ...currentPick(), sign, scale })[cell * view.k + rank];
  const scales = page.scales.map((_, i) => i).filter((i) => SIGNS.some(({ sign }) => Number.isFinite(at(sign, i))));
  const ranges = scales.map((i) => ({ x: page.scales[i], ...band(drawsOf(view, measure, { ...currentPick(), scale: i })[state.source]) })).filter((p) => p.n);
  const sentence = ({ sign, name }) => `${name}: ${scales.map((i) => `${show(at(sign, i))} at ${page.scales[i]}`).join(", ")}`;
  drawChart("vector-effects", `${SIGNS.map(sentence).join("; ")}. ${byKl(page) ? "KL of the next token in nats, the mean over prompts" : "Scale: fraction of the activation norm at the source"}. Grey: random vectors.`, () => ({
    traces: [
      ...bandTraces(ranges, "random, range"),
      ...SIGNS.map(({ sign, name, colour, symbol }) => ({
        x: scales.map((i) => page.scales[i]), y: scales.map((i) => at(sign, i)), mode: "lines+markers", name,
        line: { color: token(colour) }, marker: { color: token(colour), symbol, size: 10 }, hovertemplate: `${byKl(page) ? "KL" : "scale"} %{x}, ${name}: %{y:.3g}<extra></extra>`,
      })),
    ],
    layout: { xaxis: { title: { text: byKl(page) ? "KL (nats)" : "scale (× activation norm)" } }, yaxis: { title: { text: measure.unit || measure.label }, rangemode: measure.signed ? "normal" : "tozero" } },
  }));
}

let drawing = 0;
async function drawTexts() {
  const mine = ++drawing, cell = view.at(state.source, state.target), rank = Math.min(state.vector, view.ranks(cell) - 1);
  const rows = view.rowsOf(cell, rank, textPrompt), prompt = page.prompts[textPrompt];
  $("prompt-text").replaceChildren(...lines(prompt?.text ?? ""));
  $("prompt-more").replaceChildren(...unfold($("prompt-text"), prompt?.text ?? ""));
  $("base-samples").replaceChildren(...sampleList(prompt?.base_samples?.map((text, i) => [text, prompt.base_sample_scores?.[i]]), "without a vector", false));
  const texts = rows.length ? await view.texts(state.source) : null;
  if (mine !== drawing) return;
  const chosen = rows.find((r) => r.scale === state.scale && r.sign === (state.sign || 1)) ?? rows[0];
  $("python").textContent = python(cell, rank, chosen);
  const pair = (row) => (({ text, samples } = { text: "" }) => el("article", { class: `pair${row === chosen ? " chosen" : ""}`, "data-row": row.row },
    el("header", {},
      el("button", { type: "button", class: `sign ${row.sign > 0 ? "plus" : "minus"}`, "aria-pressed": String(row === chosen), title: "Choose this sign and scale", onclick: () => update({ sign: row.sign, scale: row.scale }) },
        `${row.sign > 0 ? "+" : "−"} ${page.scales[row.scale]}`),
      el("span", { class: "chips" }, effectChips(view.effects, row.row)),
      el("button", { type: "button", class: "small", onclick: (event) => copy(python(cell, rank, row), event.target) }, "Copy Python")),
    sideBySide([prompt.base_text, prompt.base_score], [text, scoreOf(view.effects, row.row)], prompt.base_text !== "" || text !== ""),
    sampleList(samples, "with this vector", row === chosen)))(texts?.steered(row.row));
  const focused = $("texts").contains(document.activeElement);
  $("texts").replaceChildren(...(rows.length ? rows.map(pair) : [el("p", { class: "hint" }, "No effects were recorded for this vector and prompt.")]));
  if (focused) $("texts").querySelector(".chosen .sign")?.focus({ preventScroll: true });
  drawRandomTexts();
}

async function drawRandomTexts() {
  const node = $("random-texts"), sign = state.sign || 1;
  const rows = view.randomRows(state.source, { prompt: textPrompt, scale: state.scale, sign });
  node.hidden = !rows.length;
  if (!rows.length) return;
  const mine = drawing, texts = await view.texts(state.source), prompt = page.prompts[textPrompt];
  if (mine !== drawing) return;
  node.querySelector("div").replaceChildren(...rows.map((row) => (({ text, samples } = { text: "" }) => el("article", { class: "pair" },
    el("header", {}, el("span", { class: "sign" }, `draw ${row.rank}`), el("span", { class: "chips" }, effectChips(view.random, row.row))),
    sideBySide([prompt.base_text, prompt.base_score], [text, scoreOf(view.random, row.row)], Boolean(texts)),
    sampleList(samples, "with this vector", false)))(texts?.random(row.row))));
}

const scoreOf = (e, row) => e["of.score"]?.[row];

function effectChips(e, row) {
  return measuresOf(view).filter((m) => !m.spectrum && Number.isFinite(e[`of.${m.id}`]?.[row]))
    .map((m) => el("span", { class: "chip", title: m.about }, `${m.label} `, el("b", {}, m.signed ? signed(e[`of.${m.id}`][row]) : show(e[`of.${m.id}`][row]))));
}

// A JSON string is also a Python string. The scale is relative if that gives the added length, else absolute.
function python(cell, rank, row) {
  const target = page.targets[state.target], single = page.views.length > 1 && view.prompts.length === 1;
  const vector = `atlas${single ? `.prompt(${view.prompts[0]})` : ""}.vector(${page.sources[state.source]}, ${JSON.stringify(target)}, ${rank})`;
  const lines = ["import powersteer as ps", page.reproduce.load, page.reproduce.atlas].filter(Boolean);
  if (!row) return [...lines, `vec = ${vector}`].join("\n");
  const scale = page.scales[row.scale], relative = !byKl(page) && Math.abs(scale * view.cells.site_norm[cell] - row.norm) <= 1e-6 * row.norm;
  const steer = relative ? `(${row.sign < 0 ? "-" : ""}${vector}).relative(${scale})`.replace(/^\((atlas.*)\)\.rel/, "$1.rel")
    : `${row.sign < 0 ? "-" : ""}${row.norm} * ${vector}`;
  const tokens = page.settings.max_new_tokens;
  return [...lines, `prompt = ${JSON.stringify(page.prompts[textPrompt].text)}`,
    `print(model.steered(${steer}).generate(prompt${tokens ? `, max_new_tokens=${tokens}` : ""}).text)`].join("\n");
}
