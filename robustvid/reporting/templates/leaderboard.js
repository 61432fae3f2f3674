// The state of the page is its address, #board=motion10-linf&sort=clean:desc&q=pgd&compare=a,b, so that it can be sent.
const MOST_COMPARED = 6;
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const DASHES = ["", "7 3", "2 3", "6 3 2 3", "10 3 2 3 2 3", "1 3"];
const FRAME = { width: 480, height: 320, left: 46, right: 466, top: 14, bottom: 270 };
const compared = JSON.parse(document.getElementById("compared").textContent);
const sections = [...document.querySelectorAll(".board")];

const state = () => new URLSearchParams(location.hash.slice(1));

function change(entries) {
  const next = state();
  for (const [key, value] of Object.entries(entries)) {
    if (value) next.set(key, value); else next.delete(key);
  }
  history.replaceState(null, "", `#${next.toString().replaceAll("%2C", ",").replaceAll("%3A", ":")}`);
  show();
}

function value(row, key) {
  const text = row.dataset[key];
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text.toLowerCase();
}

function sortRows(section, given) {
  const [key, direction] = (given || "rank:asc").split(":");
  const heads = [...section.querySelectorAll("th[data-key]")];
  const head = heads.find((one) => one.dataset.key === key) || heads[0];
  const sign = direction === "desc" ? -1 : 1;
  const body = section.querySelector("tbody");
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a, head.dataset.key), value(b, head.dataset.key)];
    return sign * (x < y ? -1 : x > y ? 1 : 0) || Number(a.dataset.rank) - Number(b.dataset.rank);
  });
  body.append(...rows);
  for (const one of heads) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
}

function filterRows(section, now) {
  const words = (now.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...section.querySelectorAll("tbody tr[data-id]")];
  let shown = 0;
  for (const row of rows) {
    const text = row.dataset.text.toLowerCase();
    const fits = words.every((word) => text.includes(word))
      && ["status", "arch"].every((key) => !now.get(key) || row.dataset[key] === now.get(key));
    row.hidden = !fits;
    shown += fits ? 1 : 0;
  }
  section.querySelector(".count").textContent = `${shown} of ${rows.length} models`;
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, text] of Object.entries(attributes)) element.setAttribute(key, text);
  element.append(...children);
  return element;
}

function comparison(panel, picked) {
  const figure = document.createElement("figure");
  figure.className = "chart";
  const title = document.createElement("figcaption");
  title.append(panel.title);
  const names = picked.filter((id) => panel.lines[id]);
  const svg = draw("svg", { viewBox: `0 0 ${FRAME.width} ${FRAME.height}`, role: "img" });
  svg.setAttribute("aria-label", names.map((id) => panel.lines[id].marks.map((mark) => mark[2]).join("; ")).join(". "));
  for (const [y, text] of panel.y_ticks) {
    svg.append(draw("path", { class: "grid", d: `M${FRAME.left},${y}H${FRAME.right}` }));
    svg.append(draw("text", { class: "tick", x: FRAME.left - 6, y: y + 4, "text-anchor": "end" }, text));
  }
  for (const [x, text] of panel.x_ticks) {
    svg.append(draw("text", { class: "tick", x, y: FRAME.bottom + 18, "text-anchor": "middle" }, text));
  }
  const middle = (FRAME.left + FRAME.right) / 2;
  svg.append(draw("text", { x: middle, y: FRAME.height - 8, "text-anchor": "middle" }, panel.x_label));
  svg.append(draw("path", { class: "chance", d: `M${FRAME.left},${panel.chance}H${FRAME.right}` }));
  const legend = document.createElement("ul");
  legend.className = "legend";
  names.forEach((id) => {
    const place = picked.indexOf(id);
    const style = { class: "worst", stroke: COLOURS[place], "stroke-dasharray": DASHES[place] };
    const line = panel.lines[id];
    svg.append(draw("polyline", { ...style, points: line.points }));
    for (const [x, y, text] of line.marks) {
      const mark = draw("circle", { class: "mark", cx: x, cy: y, r: 4.5, fill: COLOURS[place] });
      mark.append(draw("title", {}, `${line.label}, ${text}`));
      svg.append(mark);
    }
    const item = document.createElement("li");
    const key = draw("svg", { width: 34, height: 14, "aria-hidden": "true" }, draw("path", { ...style, d: "M1,7H33" }));
    item.append(key, line.label);
    legend.append(item);
  });
  figure.append(title, svg, legend);
  return figure;
}

function compare(section, picked) {
  for (const row of section.querySelectorAll("tbody tr[data-id]")) {
    const box = row.querySelector(".pick input");
    box.checked = picked.includes(row.dataset.id);
    box.disabled = !box.checked && picked.length >= MOST_COMPARED;
  }
  for (const point of section.querySelectorAll(".point")) {
    point.classList.toggle("picked", picked.includes(point.dataset.id));
  }
  const part = section.querySelector(".comparison");
  part.hidden = picked.length === 0;
  part.querySelector(".charts").replaceChildren(...compared[section.dataset.board].map((one) => comparison(one, picked)));
}

function showBoard(section, now) {
  if (!section.querySelector("tbody")) return;
  const part = (name) => section.querySelector(name);
  part(".filters").hidden = false;
  for (const [name, key] of [[".query", "q"], [".status", "status"], [".arch", "arch"]]) {
    const control = part(`.filters ${name}`);
    if (document.activeElement !== control) control.value = now.get(key) || "";
  }
  sortRows(section, now.get("sort"));
  filterRows(section, now);
  const known = new Set([...section.querySelectorAll("tbody tr[data-id]")].map((row) => row.dataset.id));
  compare(section, (now.get("compare") || "").split(",").filter((id) => known.has(id)).slice(0, MOST_COMPARED));
}

function show() {
  const now = state();
  const section = sections.find((one) => one.dataset.board === now.get("board")) || sections[0];
  if (!section) return;
  const board = section.dataset.board;
  let entry = null;
  for (const article of document.querySelectorAll(".entry")) {
    const wanted = article.dataset.board === board && article.dataset.id === now.get("entry");
    article.hidden = !wanted;
    if (wanted) entry = article;
  }
  for (const one of sections) one.hidden = one !== section || entry !== null;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.board === board) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (entry) startPlayers(entry); else showBoard(section, now);
  document.title = entry ? `${entry.getAttribute("aria-label")}, robustvid` : `${board}, robustvid`;
}

for (const section of sections) {
  for (const button of section.querySelectorAll("th[data-key] button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const other = { ascending: "desc", descending: "asc" }[head.getAttribute("aria-sort")] || head.dataset.first;
      change({ sort: `${head.dataset.key}:${other}` });
    });
  }
  for (const [name, key] of [[".query", "q"], [".status", "status"], [".arch", "arch"]]) {
    const control = section.querySelector(`.filters ${name}`);
    if (control) control.addEventListener("input", () => change({ board: section.dataset.board, [key]: control.value }));
  }
  const form = section.querySelector(".filters");
  if (form) form.addEventListener("submit", (event) => event.preventDefault());
  for (const box of section.querySelectorAll(".pick input")) {
    box.addEventListener("change", () => {
      const picked = [...section.querySelectorAll(".pick input:checked")].map((one) => one.closest("tr").dataset.id);
      change({ board: section.dataset.board, compare: picked.slice(0, MOST_COMPARED).join(",") });
    });
  }
}

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme === "dark"
    || (getComputedStyle(root).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
});

window.addEventListener("hashchange", () => { show(); scrollTo(0, 0); });
show();
