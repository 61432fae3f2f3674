"use strict";

// The player: two sprite sheets become three canvases. The difference is 128 + k * (adversarial - clean).
const FRAMES_PER_SECOND = 8;

function pixels(image, facts) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return Array.from({ length: facts.frames }, (_, frame) => {
    const x = (frame % facts.columns) * facts.width;
    const y = Math.floor(frame / facts.columns) * facts.height;
    return context.getImageData(x, y, facts.width, facts.height);
  });
}

function peak(clean, adversarial) {
  return clean.data.reduce((most, value, at) => Math.max(most, Math.abs(value - adversarial.data[at])), 0);
}

function difference(clean, adversarial, factor) {
  const result = new ImageData(clean.width, clean.height);
  for (let at = 0; at < result.data.length; at += 1) {
    const alpha = at % 4 === 3;
    result.data[at] = alpha ? 255 : 128 + factor * (adversarial.data[at] - clean.data[at]);
  }
  return result;
}

function drawHeat(canvas, facts) {
  const most = Math.max(...facts.rms, 1e-9);
  canvas.width = facts.frames;
  const context = canvas.getContext("2d");
  facts.rms.forEach((value, frame) => {
    context.fillStyle = `rgba(213, 94, 0, ${(0.08 + (0.92 * value) / most).toFixed(3)})`;
    context.fillRect(frame, 0, 1, 1);
  });
}

function startPlayer(figure, facts) {
  const part = (name) => figure.querySelector(name);
  const [clean, adversarial] = ["clean", "adversarial"].map((name) => pixels(part(`img.${name}`), facts));
  const views = ["clean", "adversarial", "difference"].map((name) => part(`canvas.${name}`));
  const [frame, amplify, play] = [part(".frame"), part(".amplify"), part(".play")];

  function show() {
    const at = Number(frame.value);
    const factor = 2 ** Number(amplify.value);
    const shown = [clean[at], adversarial[at], difference(clean[at], adversarial[at], factor)];
    views.forEach((view, place) => view.getContext("2d").putImageData(shown[place], 0, 0));
    part(".where").textContent = `${at + 1}/${facts.frames}`;
    part(".factor").textContent = `difference × ${factor}`;
    frame.setAttribute("aria-valuetext", `frame ${at + 1}, perturbation ${facts.rms[at]}/255`);
    amplify.setAttribute("aria-valuetext", `${factor} times`);
  }

  let timer = null;
  function setPlaying(playing) {
    clearInterval(timer);
    timer = playing ? setInterval(step, 1000 / FRAMES_PER_SECOND) : null;
    play.textContent = playing ? "❚❚" : "▶";
    play.setAttribute("aria-pressed", String(playing));
  }
  function step() {
    frame.value = String((Number(frame.value) + 1) % facts.frames);
    show();
  }

  views.forEach((view) => Object.assign(view, { width: facts.width, height: facts.height }));
  drawHeat(part(".heat"), facts);
  play.addEventListener("click", () => setPlaying(timer === null));
  frame.addEventListener("input", () => { setPlaying(false); show(); });
  amplify.addEventListener("input", show);
  part(".note").hidden = clean.every((image, at) => peak(image, adversarial[at]) === facts.peaks[at]);
  part(".sheets").hidden = true;
  part(".player").hidden = false;
  show();
}

async function startPlayers(root) {
  const facts = JSON.parse(document.getElementById("clip-facts").textContent);
  for (const figure of root.querySelectorAll("figure.clip")) {
    if (!figure.querySelector(".player").hidden) continue;
    await Promise.all([...figure.querySelectorAll(".sheets img")].map((image) => image.decode()));
    startPlayer(figure, facts[Number(figure.dataset.clip)]);
  }
}

// A page from a file or inside a sandbox may not reach the clipboard; then the text is selected for the reader.
async function copyCommand(button) {
  const command = button.closest(".command").querySelector("pre");
  try {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(command);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  }
}

for (const button of document.querySelectorAll(".command button")) {
  button.addEventListener("click", () => copyCommand(button));
}
