// Texts of prompts and continuations: their line breaks, their scores, and long ones folded.
const LONG = { characters: 600, lines: 8 };

// Text nodes, every line break in an element that shows a mark before it.
const lines = (text) => text.split(/(\n)/).filter(Boolean).map((part) => (part === "\n" ? el("span", { class: "break" }, part) : part));

// The button that unfolds and folds a node with these texts. Short texts are not folded and have no button.
function unfold(node, ...texts) {
  const long = texts.some((text) => text.length > LONG.characters || text.split("\n").length > LONG.lines);
  node.classList.toggle("folded", long);
  const turn = ({ target }) => {
    const folded = node.classList.toggle("folded");
    target.setAttribute("aria-expanded", String(!folded));
    target.textContent = folded ? "Show all" : "Show less";
  };
  return long ? [el("button", { type: "button", class: "small unfold", "aria-expanded": "false", onclick: turn }, "Show all")] : [];
}

// Right or wrong if every score of the view is 1 or 0, else the score; null without a score.
function verdict(score) {
  if (!Number.isFinite(score)) return null;
  if (!view.judged) return el("span", { class: "badge" }, `score ${show(score)}`);
  return score ? el("span", { class: "badge right" }, "✓ right") : el("span", { class: "badge wrong" }, "✗ wrong");
}

const judgement = (score) => (view.judged && Number.isFinite(score) ? (score ? " right" : " wrong") : "");

// base, steered: [text, score].
function sideBySide([base, baseScore], [steered, score], recorded) {
  if (!recorded) return el("p", { class: "hint" }, "No continuation was recorded.");
  const parts = diff(base, steered), same = base === steered;
  const side = (name, kind, x) => el("div", {}, el("h4", {}, name, " ", verdict(x)), el("p", { class: `text${judgement(x)}` }, marked(parts, kind)));
  const sides = el("div", { class: "sides" }, side("Base", "base", baseScore), side(`Steered${same ? ", the same text" : ""}`, "new", score));
  return [sides, unfold(sides, base, steered)];
}

// Sampled continuations, [[text, score]], with how many of them are right; [] for none.
function sampleList(samples, whose, open) {
  if (!samples?.length) return [];
  const right = samples.filter(([, score]) => score === 1).length, { temperature } = page.settings;
  const scored = view.judged && samples.some(([, score]) => Number.isFinite(score));
  const title = `${plural(samples.length, "sample")} ${whose}${temperature ? ` at temperature ${temperature}` : ""}${scored ? `: ${right} right, ${samples.length - right} wrong` : ""}`;
  const item = ([text, score]) => {
    const shown = el("p", { class: `text${judgement(score)}` }, text ? lines(text) : el("span", { class: "hint" }, "(no text)"));
    return el("li", {}, verdict(score), shown, unfold(shown, text));
  };
  return [el("details", { class: "samples", open }, el("summary", {}, title), el("ol", {}, samples.map(item)))];
}
