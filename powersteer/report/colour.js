// Colour maps that stay readable in the common kinds of colour blindness and in grey: cividis, and blue - orange around
// zero for signed values. Stops are equally spaced.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const DIVERGING = {
  light: ["#08519c", "#3182bd", "#6baed6", "#bdd7e7", "#f4f3f1", "#fdd0a2", "#fd9a4f", "#d95f0e", "#8c3a04"],
  dark: ["#8cc4ee", "#5b9fd4", "#3374a8", "#244d6e", "#33363b", "#6e4423", "#a8622a", "#de8a3c", "#ffc283"],
};

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function mix(stops, x) {
  const at = Math.min(Math.max(x, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [rgb(stops[i]), rgb(stops[i + 1])];
  return a.map((c, j) => Math.round(c + (b[j] - c) * (at - i)));
}

// Relative luminance by WCAG.
const luminance = (colour) => {
  const [r, g, b] = colour.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

const isDark = () => getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";

// A scale for these values: place(x) in 0..1, css(x), ink(x) for a number on top, ticks.
// kind: "auto" | "linear" | "log"; auto is logarithmic for positive measures that span more than a factor 30.
function colourScale(values, { signed: centred, positive, kind }) {
  const finite = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!finite.length) return null;
  let [low, high] = [finite[0], finite[finite.length - 1]];
  const log = !centred && low > 0 && (kind === "log" || (kind === "auto" && positive && high > 30 * low));
  if (centred) { high = Math.max(Math.abs(low), Math.abs(high)); low = -high; }
  const f = log ? Math.log : (x) => x;
  const stops = centred ? DIVERGING[isDark() ? "dark" : "light"] : CIVIDIS;
  const place = (x) => (high > low ? (f(x) - f(low)) / (f(high) - f(low)) : 0.5);
  const css = (x) => `rgb(${mix(stops, place(x)).join(" ")})`;
  const ink = (x) => (luminance(mix(stops, place(x))) > 0.179 ? "#000" : "#fff"); // whichever is further from it, 4.5:1 or more
  const inverse = (p) => (log ? Math.exp(f(low) + p * (f(high) - f(low))) : low + p * (high - low));
  return { low, high, log, centred, css, ink, ticks: high > low ? [0, 0.25, 0.5, 0.75, 1].map(inverse) : [low], stops };
}
