// Words, spaces and marks of a text, by the rules of its language where the browser knows them.
const segmenter = window.Intl?.Segmenter && new Intl.Segmenter(undefined, { granularity: "word" });
const words = (text) => (segmenter ? Array.from(segmenter.segment(text), (s) => s.segment) : text.match(/\s+|[^\s]+/g) ?? []);
const LONGEST = 2000; // words; the table below is quadratic

// The differences of two texts as [[kind, text]], kind "same", "base" (only in the first) or "new" (only in the second):
// a longest common subsequence of words.
function diff(base, other) {
  const a = words(base), b = words(other);
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const x = a.slice(start, a.length - end), y = b.slice(start, b.length - end);
  const out = [["same", a.slice(0, start)], ...middle(x, y), ["same", a.slice(a.length - end)]];
  const merged = [];
  for (const [kind, parts] of out) {
    if (!parts.length) continue;
    if (merged.length && merged[merged.length - 1][0] === kind) merged[merged.length - 1][1] += parts.join("");
    else merged.push([kind, parts.join("")]);
  }
  return merged;
}

function middle(x, y) {
  if (!x.length || !y.length || x.length > LONGEST || y.length > LONGEST) return [["base", x], ["new", y]];
  const width = y.length + 1, length = new Uint16Array((x.length + 1) * width); // of the best match of x[i:], y[j:]
  for (let i = x.length - 1; i >= 0; i--) {
    for (let j = y.length - 1; j >= 0; j--) {
      length[i * width + j] = x[i] === y[j] ? length[(i + 1) * width + j + 1] + 1
        : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  const out = [];
  let i = 0, j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) { out.push(["same", [x[i++]]]); j++; }
    else if (j >= y.length || (i < x.length && length[(i + 1) * width + j] >= length[i * width + j + 1])) out.push(["base", [x[i++]]]);
    else out.push(["new", [y[j++]]]);
  }
  return out;
}

// Text nodes of one side; words that only this side has are in <del> (base) or <ins> (steered).
function marked(parts, side) {
  const tag = { base: "del", new: "ins" }[side];
  return parts.filter(([kind]) => kind === "same" || kind === side).flatMap(([kind, text]) => (kind === "same" ? lines(text) : el(tag, {}, lines(text))));
}
