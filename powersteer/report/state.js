// What is shown, all of it in the URL's fragment, so that a link leads back to the same cell and vector.
// Sources, targets and scales are places in the page's lists here, and their values in the fragment.
const state = {
  view: 0, measure: "sigma", rank: 0, sign: 0, scale: 0, prompt: -1, against: "none", colours: "auto",
  source: 0, target: 0, vector: 0,
};
const SIGN = { "+": 1, "−": -1, "-": -1, both: 0 };

let page; // the index block
let view; // the View that is shown
const views = [];
const listeners = []; // called with the set of names that changed

async function showView(number) {
  views[number] ??= new View(number, page, await block(`view-${number}`));
  view = views[number];
}

// What was picked and is not in the view gives way; what did is returned.
function fitToView() {
  const patch = {};
  if (state.prompt >= 0 && !view.steeredPrompts.includes(state.prompt)) patch.prompt = -1;
  if (state.against === "random" && !view.draws) patch.against = "none";
  Object.assign(state, patch);
  return patch;
}

let latest = 0;
async function update(patch) {
  const changed = new Set(Object.keys(patch).filter((name) => state[name] !== patch[name]));
  if (!changed.size) return;
  Object.assign(state, patch);
  if (changed.has("view")) {
    const mine = ++latest;
    $("problem").hidden = true;
    await showView(state.view);
    if (mine !== latest) return;
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
  };
  const known = Object.entries(words).filter(([, value]) => value !== undefined); // without effects there is no scale
  history.replaceState(null, "", `#${new URLSearchParams(known)}`);
}

// The part of the fragment that fits this page; what does not is left as it is by default.
function readFragment() {
  const words = new URLSearchParams(location.hash.slice(1)), patch = {};
  const choose = (name, options, values = options) => {
    const i = options.map(String).indexOf(words.get(name));
    if (words.has(name) && i >= 0) patch[name] = values[i];
  };
  const upTo = (n) => Array.from({ length: n }, (_, i) => i);
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
  if (words.has("measure")) patch.measure = words.get("measure");
  return patch;
}

const layerName = (target) => (typeof target === "string" ? target.replace("_", " ") : `layer ${target}`);
const pairName = (source, target) => `Layer ${page.sources[source]} → ${layerName(page.targets[target])}`;
const currentMeasure = () => measuresOf(view.fields).find((m) => m.id === state.measure) ?? measuresOf(view.fields)[0];
const currentPick = () => ({ sign: state.sign, scale: state.scale, prompt: state.prompt });
