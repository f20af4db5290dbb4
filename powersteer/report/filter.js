// The filter of the table: conditions such as "kl > 2", "source 3,4", "target 7-9" or "2 <= rank < 5",
// all of which must hold; "or" between them separates alternatives.
const NUMBER = String.raw`[-−+]?(?:\d+\.?\d*|\.\d+)(?:e[-−+]?\d+)?`;
const WORDS = {
  number: NUMBER,
  range: String.raw`(${NUMBER})(?:-|\s+-\s+|\s*(?:–|—|\.\.\.?|\bto\b)\s*)(${NUMBER})`,
  next: String.raw`next(?:[\s_-]*token)?`,
  compare: String.raw`>=|=>|<=|=<|≥|≤|!==?|≠|<>|===?|=|>|<|:|is\s+not\b|is\b|not\s+in\b|in\b`,
  comma: String.raw`\s*(?:,|\||\bor\b|\s)\s*`, // between the values of a list
  between: String.raw`(?:[\s,;]|&&?|and\b)+`, // between conditions
  or: String.raw`(?:or\b|\|\|?)`,
  open: String.raw`[[({]\s*`, // a list may stand in brackets
  close: String.raw`\s*[\])}]`,
  word: String.raw`[^\s,;]+`,
};
// What follows a value: the end of a word, and no comparison, which makes the value one to the left of a name.
const ENDS = String.raw`(?=[\s,;|&\])}]|$)(?!\s*[<>=≤≥≠!])`;
const BOUNDS = { ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b };
const SAME = { "=>": ">=", "=<": "<=", "≥": ">=", "≤": "<=" };
const MIRRORED = { ">": "<", "<": ">", ">=": "<=", "<=": ">=" };
const UNEQUAL = /^(!|≠|<>|not|is\s+not)/i;
const OTHER_NAMES = {
  source: ["sources"], target: ["targets"], rank: ["ranks"], sigma: ["σ"], decay: ["σ/σ₁"], residual: ["residuals"],
  kl_end: ["kl"], kl_continuation: ["kl"], score: ["accuracy"],
};

// [name, column], the longest first: ids, labels and other names, the first of a name going before others.
function columnNames(columns) {
  const names = new Map();
  const add = (name, column) => { if (!names.has(name.toLowerCase())) names.set(name.toLowerCase(), column); };
  columns.forEach((c) => add(c.id, c));
  columns.forEach((c) => add(c.label, c));
  columns.forEach((c) => OTHER_NAMES[c.id]?.forEach((name) => add(name, c)));
  for (const c of columns.filter(({ id }) => id.startsWith("logit:"))) {
    const logit = c.id.slice(6);
    for (const written of [`"${logit}"`, logit.trim(), `"${logit.trim()}"`]) [":", " "].forEach((sign) => add(`logit${sign}${written}`, c));
  }
  return [...names].sort(([a], [b]) => b.length - a.length);
}

// {test(i), unknown}: whether a vector fulfils the understood conditions, and the phrases that are not understood.
function parseFilter(text, columns) {
  const names = columnNames(columns), escape = (name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/[\s_]+/g, "[\\s_]*");
  const pattern = Object.fromEntries(Object.entries(WORDS).map(([name, source]) => [name, new RegExp(source, "iuy")]));
  for (const name of ["number", "range", "next"]) pattern[`${name} alone`] = new RegExp(WORDS[name] + ENDS, "iuy");
  pattern.name = new RegExp(`${names.map(([name]) => `(${escape(name)})`).join("|")}`, "iuy");
  let at = 0;
  const take = (name) => {
    pattern[name].lastIndex = at;
    const found = pattern[name].exec(text);
    if (found?.[0]) at = pattern[name].lastIndex;
    return found?.[0] ? found : null;
  };
  const spaces = () => { at += text.slice(at).match(/^\s*/)[0].length; };
  const value = (written) => Number(written.replace(/−/g, "-"));
  const takeName = () => {
    const found = take("name");
    if (found && /[\p{L}\p{N}_]$/u.test(found[0]) && /^[\p{L}\p{N}_]/u.test(text.slice(at))) { at -= found[0].length; return null; }
    return found && names[found.slice(1).findIndex((part) => part !== undefined)][1];
  };
  const takeCompare = () => { spaces(); const sign = take("compare")?.[0]; spaces(); return sign && (SAME[sign] ?? sign); };

  // One value of a list, as a test of what a column holds. A measured number is equal if it is shown as the same.
  const takeItem = (column) => {
    const range = take("range alone");
    if (range) {
      const [low, high] = range.slice(1, 3).map(value).sort((a, b) => a - b);
      return (x) => x >= low && x <= high;
    }
    const number = take("number alone");
    if (number) return column.exact ? (x) => x === value(number[0]) : (x) => show(x) === show(value(number[0]));
    return column.id === "target" && take("next alone") ? (x) => x === "next_token" : null;
  };
  const takeList = (column) => {
    const tests = [], bracket = take("open");
    for (let back = at; ; back = at) {
      if (tests.length && !take("comma")) break;
      const test = takeItem(column);
      if (!test) { at = back; break; }
      tests.push(test);
    }
    return tests.length && (!bracket || take("close")) ? tests : null;
  };
  // A comparison to the right of a column's name.
  const takeRight = (column) => {
    const sign = takeCompare();
    if (sign in BOUNDS) {
      const number = take("number alone");
      return number && { column, test: (x) => BOUNDS[sign](x, value(number[0])) };
    }
    const tests = takeList(column), unequal = sign && UNEQUAL.test(sign);
    return tests && { column, test: (x) => known(x) && tests.some((test) => test(x)) !== Boolean(unequal) };
  };
  const takeCondition = () => {
    const left = take("number"), sign = left && takeCompare(), column = left && !MIRRORED[sign] ? null : takeName();
    if (!column) return null;
    const after = at, chained = left && takeCompare();
    at = after;
    const right = left && !chained ? null : takeRight(column);
    const mirrored = left && { column, test: (x) => BOUNDS[MIRRORED[sign]](x, value(left[0])) };
    return !right && (!left || chained) ? null : [mirrored, right].filter(Boolean);
  };

  const alternatives = [[]], unknown = [];
  let end = -1; // of the last phrase that is not understood
  for (take("between"); at < text.length; take("between")) {
    const start = at, conditions = takeCondition();
    if (conditions) { alternatives[alternatives.length - 1].push(...conditions); continue; }
    const reached = at;
    at = start;
    if (alternatives[alternatives.length - 1].length && take("or")) { alternatives.push([]); continue; }
    at = reached;
    if (at === start || /([^\s]|[<>=≤≥≠!:]\s*)$/.test(text.slice(start, at))) take("word");
    const phrase = text.slice(start, at).replace(/[\s,;]+$/, "");
    if (end >= 0 && !text.slice(end, start).trim()) unknown[unknown.length - 1] += ` ${phrase}`;
    else unknown.push(phrase);
    end = start + phrase.length;
  }
  const some = alternatives.filter((conditions) => conditions.length);
  return { unknown, test: (i) => !some.length || some.some((conditions) => conditions.every(({ column, test }) => test(column.value(i)))) };
}

const known = (x) => typeof x !== "number" || Number.isFinite(x);
