// The live view of a run. The kernel sends new text alone, with the place where it belongs; the model holds the
// whole, so that a view that opens later, or a page that is loaded again, has it, too.
const initialize = ({ model }) => {
  model.on("msg:custom", (message) => {
    const { kind, at, text = "", at_step = 0, steps = [], note = "" } = message;
    const had = model.get("text") ?? "";
    if (kind === "whole") {
      model.set("steps", steps);
      model.set("text", text);
    } else if (at > had.length || at_step > (model.get("steps") ?? []).length) {
      return model.send({ kind: "whole" }); // something was missed
    } else {
      if (steps.length) model.set("steps", [...model.get("steps").slice(0, at_step), ...steps]);
      if (at + text.length > had.length) model.set("text", had.slice(0, at) + text);
    }
    model.set("note", note);
  });
};

const render = ({ model, el: root }) => {
  let shown = "";
  let steps = 0;
  const text = el("div", { class: "xp-text" });
  const scroll = el("div", { class: "xp-scroll", tabindex: "0", role: "region", "aria-label": "Answer as it comes" }, text);
  const list = el("ol");
  const summary = el("summary");
  const folded = el("details", { hidden: true }, summary, list);
  const note = el("div", { class: "xp-text", role: "status" });
  const stop = el("button", { type: "button", onclick: () => askStop() }, "Stop");
  const bar = el("div", { class: "xp-bar" }, stop, note);
  const final = el("div");
  root.append(el("div", { class: "xpander xpander-live" }, scroll, folded, final, bar));

  const askStop = () => {
    stop.disabled = true;
    stop.textContent = "Stopping…";
    model.send({ kind: "stop" });
    // A kernel without subshells reads no message while the cell runs; an interrupt reaches it all the same.
    setTimeout(() => model.get("running") && !model.get("stopping") && interruptKernel(model), 1500);
  };
  const showText = () => {
    const now = model.get("text") ?? "";
    if (now.length < shown.length || !now.startsWith(shown.slice(-50), Math.max(shown.length - 50, 0))) {
      text.textContent = shown = ""; // another run
    }
    if (now === shown) return;
    // Who reads further up stays there; who is at the end follows it.
    const follows = scroll.scrollTop + scroll.clientHeight >= scroll.scrollHeight - 4;
    text.append(now.slice(shown.length));
    shown = now;
    if (follows) scroll.scrollTop = scroll.scrollHeight;
  };
  const showSteps = () => {
    const now = model.get("steps") ?? [];
    if (now.length < steps) list.replaceChildren((steps = 0) || "");
    list.append(...now.slice(steps).map((step) => el("li", {}, `${step.kind}: ${step.text}`)));
    steps = now.length;
    folded.hidden = !steps;
    summary.textContent = `${steps} step${steps === 1 ? "" : "s"}`;
  };
  const showState = () => {
    const html = model.get("html");
    const running = model.get("running");
    final.replaceChildren(html ? cleaned(html) : "");
    scroll.hidden = Boolean(html) || !shown;
    if (html) folded.hidden = true; // the final rendering has them
    note.textContent = model.get("note") ?? "";
    stop.hidden = !running;
    stop.disabled = model.get("stopping");
    stop.textContent = model.get("stopping") ? "Stopping…" : "Stop";
    bar.hidden = !running && !note.textContent;
  };
  const onText = () => { showText(); scroll.hidden = Boolean(model.get("html")) || !shown; };
  model.on("change:text", onText);
  model.on("change:steps", showSteps);
  model.on("change:html change:running change:note change:stopping", showState);
  showText();
  showSteps();
  showState();
  return () => {
    model.off("change:text", onText);
    model.off("change:steps", showSteps);
    model.off("change:html change:running change:note change:stopping", showState);
  };
};

export default { initialize, render };
