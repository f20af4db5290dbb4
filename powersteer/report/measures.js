// The measures of a map. spectrum: fields of the pairs; the others are fields of the effects.
const SPECTRUM = {
  sigma: { label: "σ", unit: "target units per unit of v", nextUnit: "√nats per unit of v", positive: true, about: "singular value of the picked rank: how far the target moves for a unit push" },
  gain: { label: "Gain", unit: "target norms per source norm", nextUnit: "√nats per source norm", positive: true, about: "σ × activation norm at the source ÷ norm of the target: how much of itself the target moves for a push as long as the source's activation" },
  decay: { label: "σ / σ₁", unit: "of σ₁", about: "decay of the spectrum: σ of the picked rank over the largest" },
  residual: { label: "Residual", unit: "of σ₁", positive: true, about: "the larger of ‖Jv − σu‖ and ‖Jᵀu − σv‖, over σ₁" },
};
const EFFECTS = {
  kl_end: { label: "KL at the prompt's end", unit: "nats", positive: true, about: "KL(base ‖ steered) of the next token at the prompt's end" },
  kl_continuation: { label: "KL along the continuation", unit: "nats a token", positive: true, about: "mean KL(base ‖ steered) per token along the base continuation" },
  sample_score: { label: "Score of the samples", unit: "score", about: "mean score of the sampled continuations: the share that is right where a score is 0 or 1" },
  score: { label: "Score / accuracy", unit: "score", about: "the score given to the steered continuation; its mean over prompts is the accuracy where it is 0 or 1" },
  linearity: { label: "Nonlinearity", unit: "‖ΔF − Jδ‖ / ‖ΔF‖", about: "how far the true change is from the linear prediction; 0 is linear" },
  repetition: { label: "Repetition", unit: "share of n-grams", about: "share of repeated n-grams in the steered continuation" },
  compression: { label: "Compression", unit: "zlib ratio", about: "zlib ratio of the steered continuation" },
  perplexity: { label: "Perplexity", unit: "under the base model", positive: true, about: "perplexity of the steered continuation under the unsteered model" },
};

// {id, label, unit, nextUnit, about, signed, positive, spectrum} of every measure in a view. nextUnit: the unit of the
// next token, if it is another.
function measuresOf({ fields, gains }) {
  const spectrum = Object.entries(SPECTRUM).filter(([id]) => id !== "gain" || gains).map(([id, m]) => ({ id, spectrum: true, ...m }));
  const rank = (id) => { const i = Object.keys(EFFECTS).indexOf(id); return i < 0 ? 99 : i; };
  const effects = [...fields].sort((a, b) => rank(a) - rank(b)).map((id) => {
    if (id.startsWith("logit:")) {
      const token = JSON.stringify(id.slice(6));
      return { id, label: `Logit of ${token}`, unit: "logits", signed: true, about: `change of the logit of ${token} minus the mean change` };
    }
    return { id, label: id, unit: "", about: `the effect's "${id}"`, ...EFFECTS[id] };
  });
  return [...spectrum, ...effects];
}

// A value for every vector of a view (n * k).
function vectorValues(view, measure, pick) {
  const { sigma } = view.cells;
  if (["sigma", "gain", "residual"].includes(measure.id)) return view.cells[measure.id];
  if (measure.id === "decay") return sigma.map((x, i) => x / sigma[i - (i % view.k)]);
  return view.ofVectors(measure.id, pick);
}

const largest = (values) => values.reduce((a, b) => (!(Math.abs(b) > Math.abs(a)) && !Number.isNaN(a) ? a : b), NaN);

// A value for every cell. rank "max": the largest of its vectors. against "random": minus the median of the random draws
// at the same source, or, for the largest of the ranks, minus the largest of the draws.
function cellValues(view, measure, { rank, against, ...pick }) {
  const values = vectorValues(view, measure, pick);
  const bySize = measure.signed && !pick.sign; // signs of vectors are arbitrary, those of draws as well
  const typical = (draws) => (rank === "max" ? largest(draws) : band(draws)?.median ?? NaN);
  const random = against === "random" && !measure.spectrum
    ? view.ofRandom(measure.id, pick).map((draws) => typical(bySize ? draws.map(Math.abs) : draws)) : null;
  return Array.from({ length: view.n }, (_, cell) => {
    const own = values.subarray(cell * view.k, (cell + 1) * view.k);
    const value = rank === "max" ? largest(own) : own[rank];
    const less = random?.[view.cells.source[cell]] ?? 0;
    return bySize ? Math.sign(value) * (Math.abs(value) - less) : value - less;
  });
}

// The random draws, by source, that vectors in both signs are held against: for "larger of both signs" the larger of each
// draw's two as well, but of what has a sign each draw in each sign.
function drawsOf(view, measure, pick) {
  if (!measure.signed || pick.sign) return view.ofRandom(measure.id, pick);
  const [plus, minus] = [1, -1].map((sign) => view.ofRandom(measure.id, { ...pick, sign }));
  return plus.map((draws, source) => [...draws, ...minus[source]]);
}

// The strength of effects: a scale, or the KL that the scale was found for.
const byKl = (page) => page.strength === "kl";
function strength(page, scale) {
  return byKl(page) ? `KL ${page.scales[scale]} nats` : `scale ${page.scales[scale]}`;
}

function describe(measure, { rank, sign, scale, prompt, against }, page) {
  const which = rank === "max" ? "largest of the ranks" : `rank ${rank}`;
  if (measure.spectrum) return `${measure.label}, ${which}`;
  const push = `${{ 1: "along +v", "-1": "along −v", 0: "larger of both signs" }[sign]}, ${strength(page, scale)}`;
  const where = prompt < 0 ? "mean over prompts" : page.prompts[prompt].name;
  return `${measure.label}${against === "random" ? " minus random" : ""}, ${which}, ${push}, ${where}`;
}
