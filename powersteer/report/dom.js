const $ = (id) => document.getElementById(id);

// An element. Strings among the children become text nodes, never markup; a function is a listener, on<event>.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

// <option>s from [value, label] pairs, or {group: label, options: pairs}.
function fillSelect(select, options, chosen) {
  const option = ([value, label]) => {
    const node = el("option", { value: String(value) }, label);
    node.selected = String(value) === String(chosen);
    return node;
  };
  select.replaceChildren(...options.map((o) =>
    o.group ? el("optgroup", { label: o.group }, o.options.map(option)) : option(o)));
}

// Three significant digits; an en dash for what was not measured.
function show(x) {
  if (!Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? x.toExponential(1)
    : size >= 100 ? x.toFixed(0) : size === 0 ? "0" : x.toPrecision(3);
  return text.replace("-", "−");
}

const signed = (x) => (x > 0 ? "+" : "") + show(x);

const plural = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

let announcement;
function announce(text) {
  clearTimeout(announcement);
  announcement = setTimeout(() => { $("live").textContent = text; }, 150);
}

async function copy(text, button) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text).catch(() => copySelected(text));
  } else copySelected(text);
  const label = button.textContent;
  button.textContent = "Copied";
  announce("Copied");
  setTimeout(() => { button.textContent = label; }, 1200);
}

function copySelected(text) {
  const area = el("textarea", { class: "sr" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
