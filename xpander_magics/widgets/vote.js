// The vote. What is shown of a pair is what the kernel has sent of it: names come after the vote.
const CHOICES = [
  ["left", "A is better", "1", ["ArrowLeft"]],
  ["right", "B is better", "2", ["ArrowRight"]],
  ["both_good", "Both good", "3", []],
  ["both_bad", "Both bad", "4", []],
  ["skip", "Skip", "0", []],
];
const SAID = {
  left: "A is better",
  right: "B is better",
  both_good: "both good",
  both_bad: "both bad",
  skip: "skipped",
};
const GLYPH = { ArrowLeft: "←", ArrowRight: "→" };
let voteViews = 0; // ids are of the whole page

const render = ({ model, el: root }) => {
  const id = `xpander-vote-${(voteViews += 1)}-${Math.random().toString(36).slice(2, 8)}`;
  let ticket = 0;
  let waits = true;
  let canUndo = false;
  let hasPair = false;
  let takesBack = false;
  let known = ""; // the voter, as the kernel has it
  let restore;

  const voter = el("input", { type: "text", id: `${id}-voter`, maxlength: "200", autocomplete: "off" });
  const progress = el("progress", { max: "1", value: "0", "aria-label": "Pairs judged" });
  const count = el("span");
  const asked = el("div", { class: "xp-asked", role: "region", "aria-label": "Input", tabindex: "0" });
  const answers = ["A", "B"].map((name) => {
    const body = el("div", { class: "xp-answer", role: "region", "aria-labelledby": `${id}-${name}`, tabindex: "0" });
    const section = el("section", {}, el("h3", { id: `${id}-${name}` }, `Answer ${name}`), body);
    return { body, section };
  });
  const sides = el("div", { class: "xp-sides" }, answers.map(({ section }) => section));
  const buttons = CHOICES.map(([choice, label, key, more]) =>
    el(
      "button",
      { type: "button", "aria-keyshortcuts": [key, ...more].join(" "), onclick: () => cast(choice) },
      `${label} `,
      el("kbd", { "aria-hidden": "true" }, [key, ...more.map((name) => GLYPH[name])].join(" "))
    )
  );
  const undo = el(
    "button",
    { type: "button", "aria-keyshortcuts": "U", onclick: () => takeBack() },
    "Undo ",
    el("kbd", { "aria-hidden": "true" }, "U")
  );
  const last = el("div", { role: "status", class: "xp-last" });
  const problem = el("div", { role: "alert", class: "xp-problem", hidden: true });
  const table = el("div", { id: `${id}-standing`, hidden: true, class: "xp-table", tabindex: "0", role: "region", "aria-label": "Standing" });
  const standing = el(
    "button",
    { type: "button", "aria-expanded": "false", "aria-controls": `${id}-standing`, onclick: () => openStanding(table.hidden) },
    "Standing"
  );
  const box = el(
    "div",
    { class: "xpander xpander-vote", role: "group", "aria-label": "Vote between two answers", tabindex: "-1" },
    el("div", { class: "xp-bar" }, el("label", { for: `${id}-voter` }, "Voter"), voter, progress, count),
    asked,
    sides,
    el("div", { class: "xp-bar", role: "group", "aria-label": "Your vote" }, buttons, undo, standing),
    problem,
    last,
    table
  );
  root.append(box);

  const usable = () => {
    for (const button of buttons) button.setAttribute("aria-disabled", String(waits || !hasPair));
    undo.setAttribute("aria-disabled", String(waits || !canUndo));
  };
  const send = (message) => {
    waits = true;
    usable();
    model.send(message);
  };
  // Which pair it is about goes along: a key that is pressed twice doesn't judge the next one.
  const cast = (choice) => !waits && hasPair && send({ kind: "vote", choice, ticket });
  const takeBack = () => !waits && canUndo && (takesBack = true) && send({ kind: "undo" });
  const openStanding = (open) => {
    table.hidden = !open;
    standing.setAttribute("aria-expanded", String(open));
    if (open) model.send({ kind: "standing" });
  };
  const changeVoter = () => !waits && voter.value !== known && send({ kind: "voter", name: voter.value });
  voter.addEventListener("change", changeVoter);

  const showPair = (message) => {
    const { pair, judged, total, identical } = message;
    ticket = message.ticket;
    canUndo = message.can_undo;
    hasPair = Boolean(pair);
    waits = false;
    problem.hidden = true;
    known = message.voter;
    if (document.activeElement !== voter) voter.value = known;
    progress.max = Math.max(total, 1);
    progress.value = judged;
    const same = identical ? ` · ${identical} not asked: both answers are the same` : "";
    count.textContent = `${judged} of ${total} judged${same}`;
    asked.hidden = sides.hidden = !pair;
    if (pair) {
      asked.replaceChildren(
        ...pair.input.flatMap(([name, value]) => [el("strong", {}, name), el("div", { class: "xp-text" }, value)])
      );
      answers.forEach(({ body }, number) => {
        const html = number ? pair.b : pair.a;
        body.replaceChildren(html ? cleaned(html) : el("em", {}, "An empty answer."));
        body.scrollTop = 0;
      });
      asked.scrollTop = 0;
    }
    const back = takesBack && "The last vote was taken back.";
    takesBack = false;
    const names = message.last && `Last vote: ${SAID[message.last.choice]}. A was ${message.last.a}, B was ${message.last.b}.`;
    const end = pair ? "" : total ? "All pairs are judged." : "No pair is left to judge: the answers are the same.";
    last.replaceChildren(...[back, names, end].filter(Boolean).map((line) => el("div", {}, line)));
    usable();
    if (!pair) openStanding(true);
    else if (!table.hidden) model.send({ kind: "standing" });
    restore ??= standIn(root, model);
  };
  const hear = (message) => {
    if (message.kind === "pair") showPair(message);
    else if (message.kind === "standing") table.replaceChildren(cleaned(message.html));
    else if (message.kind === "error") {
      waits = false;
      problem.textContent = message.text;
      problem.hidden = false;
      voter.value = known;
      usable();
    }
  };
  model.on("msg:custom", hear);
  // A kernel that was restarted keeps no votes: what stands in for this says how they stood.
  const leave = () => {
    if (model.comm_live === true) return;
    restore?.();
    box.replaceChildren(el("p", {}, "The kernel was restarted. Run the cell again to go on; what was voted is kept."));
  };
  model.on("comm_live_update", leave);
  const giveKeys = keepKeys(".xpander-vote, .xpander-vote :is(button, [tabindex])");

  // Heard before the notebook's own shortcuts, which would make a heading of the cell for a 1.
  const press = (event) => {
    const typed = event.target;
    if (!box.contains(typed) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const enters = typed === voter && event.key === "Enter"; // the notebook would open a cell by it
    if (!enters && typed.closest("input, textarea, select, [contenteditable]")) return;
    const scrolls = typed.scrollWidth > typed.clientWidth && typed.matches("[role=region]");
    const found = CHOICES.find(([, , key, more]) => event.key === key || (!scrolls && more.includes(event.key)));
    const undoes = event.key.toLowerCase() === "u";
    if (!found && !undoes && !enters) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat) return;
    if (enters) changeVoter();
    else if (undoes) takeBack();
    else cast(found[0]);
  };
  window.addEventListener("keydown", press, true);

  usable();
  model.send({ kind: "ready" });
  return () => {
    window.removeEventListener("keydown", press, true);
    model.off("msg:custom", hear);
    model.off("comm_live_update", leave);
    giveKeys();
    restore?.();
  };
};

export default { render };
