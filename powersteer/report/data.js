// Blocks of data stand in script elements of no known type: base64 of zlib. Each is decoded at its first use.
const parsed = new Promise((done) => {
  if (document.readyState !== "loading") done();
  else document.addEventListener("DOMContentLoaded", done, { once: true });
});

// The bytes of a block; null: no block has that name.
async function block(name) {
  const ready = () => { const node = $(`data-${name}`); return node && node.nextSibling && node; }; // wholly parsed
  if (!ready()) await parsed;
  const node = ready();
  if (!node) return null;
  const text = node.textContent;
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return inflate(bytes);
}

const json = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

const TYPES = { i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

// {"cells.sigma": array, ...} of a block of columns (see pack.py).
function unpack(bytes) {
  const start = 8 + new DataView(bytes.buffer).getUint32(0, true);
  const header = json(bytes.subarray(8, start));
  return Object.fromEntries(Object.entries(header).map(([name, [type, first, length]]) =>
    [name, new TYPES[type](bytes.buffer, start + first, length)]));
}

// One view, which is a group of prompts: pairs, effects of their vectors, and effects of random vectors of the same length.
class View {
  constructor(number, page, bytes) {
    const columns = unpack(bytes);
    const part = (prefix) => Object.fromEntries(Object.entries(columns)
      .filter(([name]) => name.startsWith(prefix)).map(([name, a]) => [name.slice(prefix.length), a]));
    Object.assign(this, { number, page, ...page.views[number], k: page.k });
    this.cells = part("cells.");
    this.effects = part("effects.");
    this.random = part("random.");
    this.n = this.cells.source.length;
    this.nTargets = page.targets.length;
    this.cellAt = new Int32Array(page.sources.length * this.nTargets).fill(-1);
    for (let i = 0; i < this.n; i++) this.cellAt[this.cells.source[i] * this.nTargets + this.cells.target[i]] = i;
    this.draws = this.random.rank.reduce((most, rank) => Math.max(most, rank + 1), 0);
    this.steeredPrompts = [...new Set(this.effects.prompt)].sort((a, b) => a - b);
    this.gains = this.cells.gain.some(Number.isFinite);
    this.judged = [this.effects, this.random].every((e) => (e["of.score"] ?? []).every((x) => Number.isNaN(x) || x === 0 || x === 1));
    this.memory = new Map();
    this.textBlocks = new Map();
  }

  // The cell of a place in the grid, or -1.
  at(source, target) { return this.cellAt[source * this.nTargets + target]; }

  // The number of kept singular triplets of a cell.
  ranks(cell) {
    let k = this.k;
    while (k > 0 && Number.isNaN(this.cells.sigma[cell * this.k + k - 1])) k--;
    return k;
  }

  // A measured field of every vector (n * k), NaN where it was not measured. pick: {sign, scale, prompt}; sign 0: the larger of
  // the two in absolute value; prompt -1: the mean over prompts.
  ofVectors(field, pick) {
    return this.#remember("effects", field, pick, this.n * this.k, (e, row) => e.cell[row] * this.k + e.rank[row]);
  }

  // The same of random vectors: for each source its draws, NaN left out.
  ofRandom(field, pick) {
    const key = `r ${field} ${pick.sign} ${pick.scale} ${pick.prompt}`;
    if (!this.memory.has(key)) {
      const all = this.#remember("random", field, pick, this.page.sources.length * this.draws,
        (e, row) => e.source[row] * this.draws + e.rank[row]);
      this.memory.set(key, this.page.sources.map((_, s) =>
        Array.from(all.subarray(s * this.draws, (s + 1) * this.draws)).filter(Number.isFinite)));
    }
    return this.memory.get(key);
  }

  #remember(name, field, pick, size, slot) {
    const key = `${name} ${field} ${pick.sign} ${pick.scale} ${pick.prompt}`;
    if (!this.memory.has(key)) {
      const signs = pick.sign ? [pick.sign] : [1, -1];
      const [a, b] = signs.map((sign) => gather(this[name], field, { ...pick, sign }, size, slot));
      this.memory.set(key, b ? a.map((x, i) => (!(Math.abs(b[i]) > Math.abs(x)) && !Number.isNaN(x) ? x : b[i])) : a);
    }
    return this.memory.get(key);
  }

  // Rows of effects of one vector and prompt: [{sign, scale, norm, row}], scales ascending.
  rowsOf(cell, rank, prompt) {
    const e = this.effects, rows = [];
    for (let row = this.#first(cell); row < e.cell.length && e.cell[row] === cell; row++) {
      if (e.rank[row] === rank && e.prompt[row] === prompt) rows.push(this.#who(e, row));
    }
    return rows.sort((a, b) => a.scale - b.scale || b.sign - a.sign);
  }

  // Rows of the random vectors at a source, for one prompt, sign and scale.
  randomRows(source, pick) {
    const e = this.random, rows = [];
    for (let row = 0; row < e.source.length; row++) {
      if (e.source[row] === source && e.prompt[row] === pick.prompt && e.scale[row] === pick.scale && e.sign[row] === pick.sign) {
        rows.push(this.#who(e, row));
      }
    }
    return rows;
  }

  #who(e, row) { return { row, rank: e.rank[row], sign: e.sign[row], scale: e.scale[row], norm: e.norm[row] }; }

  // The first row at or after a cell: rows are sorted by cell.
  #first(cell) {
    const cells = this.effects.cell;
    let low = 0, high = cells.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cells[middle] < cell) low = middle + 1; else high = middle;
    }
    return low;
  }

  // Continuations at a source: {steered(row), random(row)}, each {text, samples: [[text, score]]}, or null if none were
  // recorded.
  async texts(source) {
    if (!this.textBlocks.has(source)) {
      this.textBlocks.set(source, block(`text-${this.number}-${source}`).then((bytes) => {
        if (!bytes) return null;
        const [steered, random] = json(bytes).map((rows, i) => {
          const first = (i ? this.random : this.effects).source.indexOf(source);
          return (row) => { const [text, samples] = rows[row - first]; return { text, samples }; };
        });
        return { steered, random };
      }));
    }
    return this.textBlocks.get(source);
  }
}

// Means of a field over the rows that fit, by slot.
function gather(e, field, pick, size, slot) {
  const sum = new Float64Array(size), count = new Int32Array(size), values = e[`of.${field}`] || [];
  for (let row = 0; row < values.length; row++) {
    if (e.sign[row] !== pick.sign || e.scale[row] !== pick.scale || Number.isNaN(values[row])) continue;
    if (pick.prompt >= 0 && e.prompt[row] !== pick.prompt) continue;
    const i = slot(e, row);
    sum[i] += values[row];
    count[i]++;
  }
  return sum.map((x, i) => (count[i] ? x / count[i] : NaN));
}

// Range and median of random draws; null without draws.
function band(draws) {
  if (!draws.length) return null;
  const sorted = [...draws].sort((a, b) => a - b), middle = sorted.length >> 1;
  return {
    low: sorted[0], high: sorted[sorted.length - 1], n: sorted.length,
    median: sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2,
  };
}
