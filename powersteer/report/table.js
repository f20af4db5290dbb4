// Every vector of the view, filtered, sorted, a page at a time.
const PAGE_ROWS = 25;
const table = { sort: "sigma", descending: true, first: 0, rows: [], columns: [], filter: "" };
const FILTER_HELP = "e.g. source 3,4 target 7-9, kl > 0.5, σ > 40";

function buildTable() {
  const again = () => { table.first = 0; drawTable(); };
  $("vectors-body").append(
    el("div", { class: "pickers no-print" },
      el("label", { class: "wide" }, "Filter ", el("input", { id: "filter", type: "search", placeholder: FILTER_HELP, autocomplete: "off", spellcheck: "false", "aria-describedby": "filter-note", oninput: again, onchange: again })),
      el("label", { class: "wide" }, "Continuation contains ", el("input", { id: "contains", type: "search", autocomplete: "off", onchange: again }))),
    el("p", { id: "filter-note", class: "hint" }),
    el("div", { class: "scroll" }, el("table", { id: "table", class: "list" })),
    el("nav", { class: "buttons no-print", "aria-label": "Pages of the table" },
      el("button", { type: "button", id: "previous", onclick: () => { table.first -= PAGE_ROWS; drawRows(); } }, "‹ Previous"),
      el("span", { id: "pages", role: "status" }),
      el("button", { type: "button", id: "next", onclick: () => { table.first += PAGE_ROWS; drawRows(); } }, "Next ›")));
}

// [{id, label, value(i)}], i = cell * k + rank.
function tableColumns() {
  const { cells, k } = view, cell = (i) => (i - (i % k)) / k;
  const values = Object.fromEntries(measuresOf(view).map((m) => [m.id, m.spectrum ? vectorValues(view, m) : view.ofVectors(m.id, currentPick())]));
  const measured = (m) => ({ id: m.id, label: m.label, value: (i) => values[m.id][i] });
  const [spectrum, effects] = [true, undefined].map((kind) => measuresOf(view).filter((m) => m.spectrum === kind).map(measured));
  const first = effectMeasure(), medians = first && view.ofRandom(first.id, currentPick()).map((draws) => band(draws.map(Math.abs))?.median);
  return [
    { id: "source", label: "source", exact: true, value: (i) => page.sources[cells.source[cell(i)]] },
    { id: "target", label: "target", exact: true, value: (i) => page.targets[cells.target[cell(i)]] },
    { id: "rank", label: "rank", exact: true, value: (i) => i % k },
    ...spectrum, ...effects,
    ...(first ? [{ id: "ratio", label: `${first.label}, × random's median`, value: (i) => Math.abs(values[first.id][i]) / medians[cells.source[cell(i)]] }] : []),
  ];
}

let filtering = 0;
async function drawTable() {
  const mine = ++filtering, note = $("filter-note");
  table.columns = tableColumns();
  if (!table.columns.some((c) => c.id === table.sort)) table.sort = "sigma";
  const { unknown } = parseFilter($("filter").value, table.columns);
  if (unknown.length) $("filter").setAttribute("aria-invalid", "true"); else $("filter").removeAttribute("aria-invalid");
  if (!unknown.length) table.filter = $("filter").value; // else the last one that was understood holds
  const { test } = parseFilter(table.filter, table.columns);
  const wanted = $("contains").value.toLowerCase();
  const holds = wanted ? await vectorsSaying(wanted) : null;
  if (mine !== filtering) return;
  table.rows = [];
  for (let i = 0; i < view.n * view.k; i++) {
    if (!Number.isNaN(view.cells.sigma[i]) && test(i) && (!holds || holds.has(i))) table.rows.push(i);
  }
  const names = table.columns.map((c) => c.id).join(", ");
  const lost = unknown.length ? `${unknown.map((phrase) => `“${phrase}”`).join(", ")} ${unknown.length > 1 ? "are" : "is"} not understood. A condition is one of ${names} with =, !=, <, <=, > or >= and a number, a list (3,4) or a range (7-9). The table keeps to ${table.filter.trim() ? `“${table.filter.trim()}”` : "all vectors"}: ` : "";
  note.textContent = `${lost}${plural(table.rows.length, "vector")}${state.view || page.views.length > 1 ? ` of ${view.name}` : ""}.${page.scales.length ? ` Effects: ${{ 1: "+v", "-1": "−v", 0: "larger of both signs" }[state.sign]}, ${strength(page, state.scale)}.` : ""}`;
  sortRows();
  drawRows();
}

// Vectors with a continuation, any sign, scale and prompt, that contains a text.
async function vectorsSaying(wanted) {
  const e = view.effects, found = new Set();
  for (let s = 0; s < page.sources.length; s++) {
    const texts = await view.texts(s);
    if (!texts) continue;
    for (let row = e.source.indexOf(s); row >= 0 && row < e.source.length && e.source[row] === s; row++) {
      const { text, samples = [] } = texts.steered(row);
      if ([text, ...samples.map(([sample]) => sample)].some((said) => said.toLowerCase().includes(wanted))) found.add(e.cell[row] * view.k + e.rank[row]);
    }
  }
  return found;
}

// Numbers before names; values that were not measured are last in both orders.
function sortRows() {
  const { value } = table.columns.find((c) => c.id === table.sort), direction = table.descending ? -1 : 1;
  const keys = new Map(table.rows.map((i) => [i, value(i)]));
  const unknown = (x) => typeof x === "number" && !Number.isFinite(x);
  table.rows.sort((i, j) => {
    const a = keys.get(i), b = keys.get(j);
    if (unknown(a) || unknown(b)) return unknown(a) - unknown(b) || i - j;
    if (typeof a !== typeof b) return typeof a === "string" ? direction : -direction;
    return (a < b ? -direction : a > b ? direction : 0) || i - j;
  });
}

function drawRows() {
  table.first = Math.max(0, Math.min(table.first, Math.floor((table.rows.length - 1) / PAGE_ROWS) * PAGE_ROWS));
  const shown = table.rows.slice(table.first, table.first + PAGE_ROWS);
  const resort = (id) => {
    table.descending = table.sort === id ? !table.descending : id !== "source" && id !== "target" && id !== "rank";
    Object.assign(table, { sort: id, first: 0 });
    sortRows();
    drawRows();
    $("table").querySelector(`[data-column="${CSS.escape(id)}"]`).focus();
  };
  const head = ({ id, label }) => {
    const own = table.sort === id;
    return el("th", { scope: "col", "aria-sort": own ? (table.descending ? "descending" : "ascending") : null },
      el("button", { type: "button", "data-column": id, onclick: () => resort(id) }, label, el("span", { class: "arrow", "aria-hidden": "true" }, own ? (table.descending ? " ▾" : " ▴") : "")));
  };
  const row = (i) => {
    const cell = Math.floor(i / view.k), s = view.cells.source[cell], t = view.cells.target[cell], rank = i % view.k;
    const open = () => update({ source: s, target: t, vector: rank }).then(() => {
      $("vector-title").focus({ preventScroll: true });
      $("vector").scrollIntoView({ behavior: "smooth" });
    });
    const current = s === state.source && t === state.target && rank === state.vector;
    return el("tr", { onclick: open, "aria-current": current ? "true" : null }, table.columns.map((c, n) => {
      const value = c.value(i), text = typeof value === "string" ? value.replace("_", " ") : n < 3 ? String(value) : show(value);
      return el("td", {}, n ? text : el("button", { type: "button", "aria-label": `Source ${text}: open ${pairName(s, t)}, rank ${rank}` }, text));
    }));
  };
  $("table").replaceChildren(el("caption", { class: "sr" }, "Vectors"), el("thead", {}, el("tr", {}, table.columns.map(head))), el("tbody", {}, shown.map(row)));
  $("previous").disabled = table.first === 0;
  $("next").disabled = table.first + PAGE_ROWS >= table.rows.length;
  $("pages").textContent = table.rows.length ? `${table.first + 1}–${table.first + shown.length} of ${table.rows.length}` : "no vectors";
}
