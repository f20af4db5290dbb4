// A slider for each vector, two texts, and what is measured of them. The kernel has the model; this only shows `seen`.

const STEPS = 200; // of a slider, from end to end
const BAR = 60; // pixels of a probability of 1

function make(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
const nats = (x) => `${x.toPrecision(3)} nats`;

// JavaScript counts characters beyond the first plane twice, Python once
const cut = (text, at) => {
  const characters = Array.from(text);
  return [characters.slice(0, at).join(""), characters.slice(at).join("")];
};

function words(text, at) {
  if (at === null) return [text];
  const [same, apart] = cut(text, at);
  return [same, make("mark", { textContent: apart })];
}

function share(p) {
  const bar = make("span", { className: "bar" });
  bar.style.width = `${Math.round(BAR * p)}px`;
  return make("td", {}, bar, p.toFixed(3));
}

function sliders(model) {
  return model.get("sliders").map(({ label, limit }, i) => {
    const id = `ps-${model.model_id ?? "play"}-${i}-${Math.random().toString(36).slice(2)}`;
    const input = make("input", { type: "range", id, min: -limit, max: limit, step: (2 * limit) / STEPS });
    input.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrows, to move between cells
    const output = make("output", { htmlFor: id });
    const show = () => {
      input.value = model.get("strengths")[i];
      output.textContent = signed(model.get("strengths")[i]);
      input.setAttribute("aria-valuetext", `${output.textContent} times the activation's norm`);
    };
    input.addEventListener("input", () => {
      model.set("strengths", model.get("strengths").map((old, j) => (i === j ? input.valueAsNumber : old)));
      model.save_changes();
      show();
    });
    show();
    return { node: make("div", { className: "slider" }, make("label", { htmlFor: id, textContent: label }), input, output), show };
  });
}

function pane(title) {
  const text = make("p", { className: "words" });
  return { text, node: make("section", { className: "text" }, make("h4", { textContent: title }), text) };
}

function said({ finished, steered, parts_at: at, kl, mean_kl: mean }) {
  if (kl === null) return "";
  const apart = at === null ? (finished ? "The same text." : "") : at === 0 ? "Apart from the first token." : `Apart after ${at} characters.`;
  const along = mean === null ? "" : `, ${nats(mean)} on average over the plain continuation`;
  return `${apart} KL ${nats(kl)} at the prompt's end${along}.`.trim();
}

function render({ model, el }) {
  const rows = sliders(model);
  const prompt = make("p", { className: "prompt words" });
  const [plain, steered] = [pane("Plain"), pane("Steered")];
  const status = make("p", { className: "status" });
  const error = make("p", { className: "error", role: "alert" });
  const body = make("tbody");
  const head = make("thead", {}, make("tr", {}, ...["Next token", "Plain", "Steered"].map((t) => make("th", { textContent: t, scope: "col" }))));
  const table = make("table", { hidden: true }, head, body);
  // Read aloud once an answer is complete, not token by token
  const aloud = make("p", { className: "status" });
  aloud.setAttribute("aria-live", "polite");
  aloud.style.cssText = "position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)";

  const show = () => {
    const seen = model.get("seen");
    prompt.textContent = seen.prompt;
    plain.text.replaceChildren(...words(seen.plain, seen.parts_at));
    steered.text.replaceChildren(...words(seen.steered, seen.parts_at));
    steered.node.classList.toggle("busy", !seen.finished);
    status.textContent = said(seen);
    if (seen.finished) aloud.textContent = `Steered: ${seen.steered} ${status.textContent}`;
    table.hidden = !seen.next_tokens.length;
    body.replaceChildren(
      ...seen.next_tokens.map((t) =>
        make("tr", {}, make("th", { textContent: JSON.stringify(t.text), scope: "row" }), share(t.plain), share(t.steered))),
    );
  };
  const fail = () => { error.textContent = model.get("error"); };
  const move = () => rows.forEach((row) => row.show());

  const texts = make("div", { className: "texts" }, plain.node, steered.node);
  const root = make("div", { className: "ps-play" }, ...rows.map((row) => row.node), error, prompt, texts, status, table, aloud);
  el.append(root);
  show();
  fail();
  const listeners = { "change:seen": show, "change:error": fail, "change:strengths": move };
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);
  return () => { for (const [name, listener] of Object.entries(listeners)) model.off(name, listener); };
}

export default { render };
