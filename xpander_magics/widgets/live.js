// The live view of a run. The kernel sends new text alone, with the place where it belongs; what has come so far is
// held here, outside of the model's state, for all views of it. Who opens a page asks for the whole.
const lives = new Map();

const initialize = ({ model }) => {
  const live = { text: "", steps: [], note: "", html: "", asked: false, heard: false, lost: false, views: new Set() };
  lives.set(model.get("stand_in"), live);
  const show = () => live.views.forEach((view) => view());
  live.ask = () => {
    if (live.asked) return; // a kernel that reads no messages while a cell runs would answer all of them at its end
    live.asked = true;
    model.send({ kind: "ready" });
  };
  model.on("msg:custom", ({ kind, at, text, at_step = 0, steps = [], note, html = "" }) => {
    if (kind !== "news") return;
    live.heard = true;
    if (at > live.text.length || at_step > live.steps.length) return live.ask(); // something was missed
    if (!at) live.asked = false;
    live.text = live.text.slice(0, at) + text;
    if (!at || steps.length) live.steps = [...live.steps.slice(0, at_step), ...steps];
    live.note = note;
    live.html = html;
    show();
  });
  model.on("change:running", () => {
    if (!model.get("running") && live.views.size) live.ask(); // for its final rendering
    show();
  });
  model.on("change:stopping", show);
  model.on("comm_live_update", () => {
    live.lost = true;
    show();
  });
  live.ask();
  return () => lives.delete(model.get("stand_in"));
};

const render = ({ model, el: root }) => {
  const live = lives.get(model.get("stand_in"));
  let shown = "";
  let shownSteps = 0;
  let shownHtml = "";

  const stop = el("button", { type: "button", onclick: () => askStop() }, "Stop");
  const note = el("div", { class: "xp-text xp-note", role: "status" });
  const bar = el("div", { class: "xp-bar" }, stop, note);
  const summary = el("summary");
  const list = el("ol");
  const way = el("div", { class: "xp-way", tabindex: "0", role: "region", "aria-label": "Steps on the way" }, list);
  const folded = el("details", { hidden: true }, summary, way);
  const text = el("div", { class: "xp-text", dir: "auto" });
  const scroll = el("div", { class: "xp-scroll", tabindex: "0", role: "region", "aria-label": "Answer as it comes" }, text);
  const final = el("div");
  root.append(el("div", { class: "xpander xpander-live" }, bar, folded, scroll, final));
  const giveKeys = keepKeys(".xpander-live :is(button, summary, [tabindex])");

  // What is said again, a screen reader would read again.
  const say = (node, told) => node.textContent !== told && (node.textContent = told);
  const askStop = () => {
    stop.disabled = true;
    say(stop, "Stopping…");
    model.send({ kind: "stop" });
    // A kernel that reads no messages while a cell runs is reached by an interrupt all the same. Not one that was never
    // heard of here: this view may be what a notebook has kept of another kernel's, and that cell is none of ours.
    const ours = () => live.heard && !live.lost && model.get("interrupts");
    const unheard = () => ours() && model.get("running") && !model.get("stopping");
    setTimeout(() => unheard() && interruptKernel(model), 1000);
  };
  const showText = () => {
    if (!live.text.startsWith(shown)) text.textContent = shown = ""; // another run
    if (live.text === shown) return;
    // Who reads further up stays there; who is at the end follows it.
    const follows = scroll.scrollTop + scroll.clientHeight >= scroll.scrollHeight - 4;
    text.append(live.text.slice(shown.length));
    shown = live.text;
    if (follows) scroll.scrollTop = scroll.scrollHeight;
  };
  const showSteps = () => {
    const { steps } = live;
    if (steps.length === shownSteps) return;
    if (steps.length < shownSteps) {
      list.replaceChildren(); // another run
      shownSteps = 0;
    }
    for (; shownSteps < steps.length; shownSteps++) {
      const { kind, text } = steps[shownSteps];
      // Thoughts come in pieces, a word each.
      const goesOn = ["thought", "analysis"].includes(kind) && steps[shownSteps - 1]?.kind === kind;
      if (goesOn) list.lastChild.append(text);
      else list.append(el("li", { dir: "auto" }, `${kind}: ${text}`));
    }
    const count = list.childElementCount;
    summary.textContent = `${count} step${count === 1 ? "" : "s"}${count ? ` · ${steps.at(-1).kind}` : ""}`;
  };
  const show = () => {
    const running = model.get("running") && !live.lost;
    const stopping = running && model.get("stopping");
    scroll.hidden = !live.text;
    folded.hidden = !live.steps.length;
    showText();
    showSteps();
    if (live.html !== shownHtml) final.replaceChildren(cleaned((shownHtml = live.html)));
    let told = live.note || (running && !live.text ? "Waiting for the answer…" : "");
    if (live.lost && model.get("running")) told = "The kernel was restarted. Its task may run on: %xpander runs tells.";
    say(note, told);
    stop.hidden = !running;
    if (!running || stopping) stop.disabled = stopping;
    say(stop, stop.disabled ? "Stopping…" : "Stop");
    bar.hidden = !running && !told;
    scroll.setAttribute("aria-busy", running);
  };
  live.views.add(show);
  show();
  const showAgain = standIn(root, model);
  return () => {
    live.views.delete(show);
    giveKeys();
    showAgain();
  };
};

export default { initialize, render };
