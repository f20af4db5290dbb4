// plotly.js is unpacked and run when the first chart is drawn, after the map.
let plotly;
const loadPlotly = () => (plotly ??= block("plotly").then((bytes) => {
  document.head.append(el("script", {}, new TextDecoder().decode(bytes)));
  return window.Plotly;
}));

// The computed value of a colour of the style sheet, for the present theme.
function token(name) {
  const probe = el("span", { style: `color: var(--${name})`, hidden: true });
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

const faint = (colour, alpha) => colour.replace(/rgba?\(([\d.]+),? ([\d.]+),? ([\d.]+).*\)/, `rgba($1, $2, $3, ${alpha})`);

// A figure with a chart and a summary of it for screen readers.
function figure(id, title) {
  return el("figure", { id }, el("figcaption", {}, el("b", {}, title), " ", el("span", { class: "hint" })),
    el("div", { class: "chart", role: "img" }));
}

// Draw into a figure. draw() is called again when the theme or the width changes; onPick(x) is called for a click on a point.
async function drawChart(id, summary, draw, onPick) {
  const node = $(id);
  node.querySelector(".hint").textContent = summary;
  const place = node.querySelector(".chart");
  place.setAttribute("aria-label", `${node.querySelector("b").textContent}. ${summary}`);
  place.draw = draw;
  const Plotly = await loadPlotly();
  if (place.draw !== draw || !place.isConnected) return; // overtaken by a newer one
  const { traces, layout = {} } = draw();
  place.style.height = `${layout.height ?? 250}px`; // plotly's own box follows it when the window changes
  const [ink, line, surface] = ["ink-2", "line", "surface"].map(token);
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true };
  const axes = Object.fromEntries(["xaxis", "yaxis", "yaxis2"].filter((a) => a in layout).map((a) => [a, { ...axis, ...layout[a] }]));
  await Plotly.react(place, traces, {
    height: 250, margin: { l: 8, r: 8, t: 8, b: 8 }, paper_bgcolor: surface, plot_bgcolor: surface,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, hovermode: "closest", showlegend: true,
    ...layout, ...axes,
  }, {
    displaylogo: false, responsive: true, displayModeBar: place.clientWidth > 480, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    showSendToCloud: false, plotlyServerURL: "", // no button that would send the data to plotly's server
  });
  stretchChart(place, matchMedia("print").matches);
  place.removeAllListeners("plotly_click");
  if (onPick) place.on("plotly_click", (event) => onPick(event.points[0].x));
}

const PAPER = 690; // pixels between the margins of A4

// On paper a chart is drawn for A4 and scaled to the paper at once, since printing does not wait. On screen the next drawing
// corrects it.
function stretchChart(place, on) {
  if (!place.querySelector(".main-svg")) return;
  if (on) window.Plotly.relayout(place, { width: PAPER });
  const drawings = place.querySelectorAll(".main-svg");
  const [width, height] = ["width", "height"].map((name) => drawings[0].getAttribute(name));
  place.style.setProperty("--aspect", on ? `${width} / ${height}` : "");
  for (const drawing of drawings) { if (on) drawing.setAttribute("viewBox", `0 0 ${width} ${height}`); else drawing.removeAttribute("viewBox"); }
}

async function redrawCharts() {
  for (const place of document.querySelectorAll(".chart")) {
    const node = place.closest("figure");
    if (place.draw) await drawChart(node.id, node.querySelector(".hint").textContent, place.draw.bind(null));
  }
}

// The random draws as a shaded range with their median, from [{x, low, median, high}].
function bandTraces(points, name) {
  const grey = token("random");
  const shape = { mode: "lines", line: { width: 0, color: grey }, hoverinfo: "skip", showlegend: false };
  const x = points.map((p) => p.x);
  return points.length ? [
    { ...shape, x, y: points.map((p) => p.low) },
    { ...shape, x, y: points.map((p) => p.high), fill: "tonexty", fillcolor: faint(grey, 0.25), name, showlegend: true },
    { x, y: points.map((p) => p.median), mode: "lines", line: { color: grey, width: 1.5, dash: "dot" }, name: "random, median", hoverinfo: "skip", showlegend: false },
  ] : [];
}

// One sign of a vector has one colour and one shape everywhere.
const SIGNS = [
  { sign: 1, name: "+v", colour: "plus", symbol: "triangle-up" },
  { sign: -1, name: "−v", colour: "minus", symbol: "triangle-down" },
];
