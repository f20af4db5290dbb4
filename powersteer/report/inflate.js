// zlib data -> bytes, by the browser, or by the decoder below where it has no DecompressionStream (RFC 1950, 1951).
async function inflate(bytes) {
  if (!window.DecompressionStream) return inflateHere(bytes);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function inflateHere(input) {
  let at = 2; // after the zlib header
  let bits = 0, held = 0, out = new Uint8Array(input.length * 4), n = 0;
  const take = (count) => {
    while (held < count) { bits |= input[at++] << held; held += 8; }
    const value = bits & ((1 << count) - 1);
    bits >>>= count;
    held -= count;
    return value;
  };
  const room = (more) => {
    if (n + more <= out.length) return;
    const larger = new Uint8Array(Math.max(out.length * 2, n + more));
    larger.set(out);
    out = larger;
  };
  // Canonical Huffman code: how many symbols there are of each length, and the symbols in order of their codes.
  const huffman = (lengths) => {
    const count = new Uint16Array(16), start = new Uint16Array(16), symbols = new Uint16Array(lengths.length);
    for (const length of lengths) count[length]++;
    count[0] = 0;
    for (let i = 1; i < 15; i++) start[i + 1] = start[i] + count[i];
    lengths.forEach((length, symbol) => { if (length) symbols[start[length]++] = symbol; });
    return { count, symbols };
  };
  const decode = ({ count, symbols }) => {
    for (let length = 1, code = 0, first = 0, index = 0; length < 16; length++) {
      code |= take(1);
      if (code - first < count[length]) return symbols[index + code - first];
      index += count[length];
      first = (first + count[length]) << 1;
      code <<= 1;
    }
    throw new Error("the page's data are damaged");
  };
  // Lengths and distances: a first value for each symbol, and as many extra bits as reach the next one's.
  const ladder = (first, extra) => {
    const base = [];
    for (const bits_ of extra) { base.push(first); first += 1 << bits_; }
    return { base, extra };
  };
  const lengths = ladder(3, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0]);
  lengths.base[28] = 258;
  const distances = ladder(1, Array.from({ length: 30 }, (_, i) => Math.max(0, (i >> 1) - 1)));
  const trees = () => {
    const nLiteral = take(5) + 257, nDistance = take(5) + 1, nCode = take(4) + 4;
    const code = new Array(19).fill(0);
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].slice(0, nCode).forEach((i) => { code[i] = take(3); });
    const tree = huffman(code), all = [];
    while (all.length < nLiteral + nDistance) {
      const symbol = decode(tree);
      if (symbol < 16) all.push(symbol);
      else {
        const value = symbol === 16 ? all[all.length - 1] : 0;
        const times = symbol === 16 ? 3 + take(2) : symbol === 17 ? 3 + take(3) : 11 + take(7);
        for (let i = 0; i < times; i++) all.push(value);
      }
    }
    return [huffman(all.slice(0, nLiteral)), huffman(all.slice(nLiteral))];
  };
  const fixed = () => [
    huffman(Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8))),
    huffman(new Array(30).fill(5)),
  ];
  for (let last = 0; !last;) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      held = bits = 0;
      const size = input[at] | (input[at + 1] << 8);
      room(size);
      out.set(input.subarray(at + 4, at + 4 + size), n);
      at += 4 + size;
      n += size;
      continue;
    }
    const [literal, distance] = kind === 1 ? fixed() : trees();
    for (let symbol; (symbol = decode(literal)) !== 256;) {
      room(258);
      if (symbol < 256) { out[n++] = symbol; continue; }
      const length = lengths.base[symbol - 257] + take(lengths.extra[symbol - 257]);
      const code = decode(distance);
      const back = distances.base[code] + take(distances.extra[code]);
      for (let i = 0; i < length; i++, n++) out[n] = out[n - back];
    }
  }
  return out.slice(0, n);
}
