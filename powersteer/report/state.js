// The state of the page, all of it in the URL's fragment, so that a link leads back to the same pair and vector. Here sources,
// targets and scales are indices into the page's lists; in the fragment they are values.
const state = {
  view: 0, measure: "sigma", rank: 0, sign: 0, scale: 0, prompt: -1, against: "none", colours: "auto",
  source: 0, target: 0, vector: 0,
  compare: "", compareView: 0, comparePrompt: -1, // measure of the second map, "" for none, its view and its steered prompt
};
const SIGN = { "+": 1, "−": -1, "-": -1, both: 0 };

let page; // the index block
let view; // the View that is shown
let secondView; // that of the second map
const views = [];
const listeners = []; // called with the set of names that changed

async function loadView(number) {
  views[number] ??= new View(number, page, await block(`view-${number}`));
  return views[number];
}

// The views that the state names.
async function showViews() {
  const [one, two] = [await loadView(state.view), state.compare ? await loadView(state.compareView) : null];
  return () => { [view, secondView] = [one, two]; };
}

// Replace choices that the view does not have; returns the replaced ones.
function fitToView() {
  const patch = {};
  if (state.prompt >= 0 && !view.steeredPrompts.includes(state.prompt)) patch.prompt = -1;
  if (secondView && state.comparePrompt >= 0 && !secondView.steeredPrompts.includes(state.comparePrompt)) patch.comparePrompt = -1;
  if (state.against === "random" && !view.draws) patch.against = "none";
  Object.assign(state, patch);
  return patch;
}

let latest = 0;
async function update(patch) {
  const changed = new Set(Object.keys(patch).filter((name) => state[name] !== patch[name]));
  if (!changed.size) return;
  Object.assign(state, patch);
  $("notice").hidden = true;
  if (["view", "compare", "compareView"].some((name) => changed.has(name))) {
    const mine = ++latest;
    $("problem").hidden = true;
    const put = await showViews();
    if (mine !== latest) return;
    put();
    Object.keys(fitToView()).forEach((name) => changed.add(name));
  }
  writeFragment();
  for (const listener of listeners) listener(changed);
}

function writeFragment() {
  const words = {
    view: state.view, source: page.sources[state.source], target: page.targets[state.target], vector: state.vector,
    measure: state.measure, rank: state.rank, sign: { 1: "+", "-1": "-", 0: "both" }[state.sign],
    scale: page.scales[state.scale], prompt: state.prompt < 0 ? "mean" : state.prompt, against: state.against,
    colours: state.colours,
    ...(state.compare ? { compare: state.compare, compareView: state.compareView, comparePrompt: state.comparePrompt < 0 ? "mean" : state.comparePrompt } : {}),
  };
  const known = Object.entries(words).filter(([, value]) => value !== undefined); // without effects there is no scale
  history.replaceState(null, "", `#${new URLSearchParams(known)}`);
}

// The part of the fragment that fits this page, and a description of the rest, which stays unchanged.
function readFragment() {
  const words = new URLSearchParams(location.hash.slice(1)), patch = {}, unknown = [];
  const choose = (name, options, values = options) => {
    if (!words.has(name)) return;
    const i = options.map(String).indexOf(words.get(name));
    if (i >= 0) patch[name] = values[i]; else unknown.push(`${name} “${words.get(name).slice(0, 40)}”`);
  };
  const upTo = (n) => Array.from({ length: n }, (_, i) => i);
  const measures = page.views.flatMap((v) => measuresOf({ ...v, gains: true })).map((m) => m.id);
  choose("view", upTo(page.views.length));
  choose("source", page.sources, upTo(page.sources.length));
  choose("target", page.targets, upTo(page.targets.length));
  choose("vector", upTo(page.k));
  choose("rank", [...upTo(page.k), "max"]);
  choose("sign", Object.keys(SIGN), Object.values(SIGN));
  choose("scale", page.scales, upTo(page.scales.length));
  choose("prompt", ["mean", ...upTo(page.prompts.length)], [-1, ...upTo(page.prompts.length)]);
  choose("against", ["none", "random"]);
  choose("colours", ["auto", "linear", "log"]);
  choose("measure", measures);
  choose("compare", ["", ...measures]);
  choose("compareView", upTo(page.views.length));
  choose("comparePrompt", ["mean", ...upTo(page.prompts.length)], [-1, ...upTo(page.prompts.length)]);
  return { patch, unknown };
}

// Whether a vector at a source can change a target at all.
const possible = (s, t) => page.possible.has(`${page.sources[s]} ${page.targets[t]}`);

function whyImpossible(s, t) {
  const [source, target] = [page.sources[s], page.targets[t]], { source_site: from = "activation", target_site: to = "activation" } = page.settings;
  return source === target && from === to ? "source and target are the same activation"
    : `${to} of layer ${target} is not computed after ${from} of layer ${source}, so a vector added there cannot change it`;
}

// A link's patch of the state without a pair that cannot be; with one end alone, the other is one that goes with it.
function linkable(patch, unknown) {
  const { source, target, ...rest } = patch, pair = { source: source ?? state.source, target: target ?? state.target };
  if (source === undefined && target === undefined) return rest;
  if (possible(pair.source, pair.target)) return { ...rest, ...pair };
  const places = (values) => values.map((_, i) => i);
  if (target === undefined) pair.target = places(page.targets).find((t) => possible(source, t));
  else if (source === undefined) pair.source = places(page.sources).find((s) => possible(s, target));
  else unknown.push(`the pair ${pairName(source, target)}, which cannot exist: ${whyImpossible(source, target)}`);
  return (source === undefined || target === undefined) && pair.source !== undefined && pair.target !== undefined ? { ...rest, ...pair } : rest;
}

// Report the parts of a link that this page does not have, and set the address to the shown state.
function answerLink(unknown) {
  $("notice").hidden = !unknown.length;
  if (!unknown.length) return;
  $("notice").textContent = `The link has values that this page does not have: ${unknown.join("; ")}.`;
  writeFragment();
}

async function followLink() {
  const { patch, unknown } = readFragment();
  await update(linkable(patch, unknown));
  answerLink(unknown);
}

const layerName = (target) => (typeof target === "string" ? target.replace("_", " ") : `layer ${target}`);
const pairName = (source, target) => `Layer ${page.sources[source]} → ${layerName(page.targets[target])}`;
const measureIn = (one, id) => measuresOf(one).find((m) => m.id === id) ?? measuresOf(one)[0];
const currentMeasure = () => measureIn(view, state.measure);
const currentPick = () => ({ sign: state.sign, scale: state.scale, prompt: state.prompt });
