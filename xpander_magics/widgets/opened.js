// A row of the board opened: all answers to one input side by side, rendered or with what differs marked.
const LANES = { thought: "thoughts", tool: "tools", agent: "sub-agents" };
const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, attributes) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

// The order of thoughts, tool calls and sub-agents: one lane each, in the same places for each configuration.
const picture = (steps) => {
  const lanes = Object.keys(LANES);
  const drawn = steps.slice(0, 200);
  const outcome = ({ ok }) => (ok === false ? " (failed)" : "");
  const said = drawn.map((step) => `${step.lane} ${step.lane === "thought" ? "" : step.name}`.trim() + outcome(step)).join(", ");
  const svg = shape("svg", { role: "img", "aria-label": `In this order: ${said}`, width: 90 + 20 * drawn.length, height: 62, class: "xp-picture" });
  lanes.forEach((lane, n) => {
    const label = shape("text", { x: 0, y: 14 + 20 * n });
    label.textContent = LANES[lane];
    svg.append(label, shape("line", { x1: 76, x2: 88 + 20 * drawn.length, y1: 10 + 20 * n, y2: 10 + 20 * n, class: "xp-lane" }));
  });
  drawn.forEach((step, n) => {
    const [x, y] = [90 + 20 * n, 10 + 20 * lanes.indexOf(step.lane)];
    if (step.lane === "thought") svg.append(shape("circle", { cx: x, cy: y, r: 5 }));
    else if (step.lane === "tool") svg.append(shape("rect", { x: x - 5, y: y - 5, width: 10, height: 10 }));
    else svg.append(shape("path", { d: `M${x} ${y - 7}l7 7l-7 7l-7-7z` }));
    if (step.ok === false) svg.append(shape("path", { d: `M${x - 7} ${y - 7}l14 14m0-14l-14 14`, class: "xp-cross" }));
  });
  return el("div", { class: "xp-scroll", tabindex: "0", role: "group", "aria-label": "Order of thoughts, tools and sub-agents" }, svg);
};

// A JSON value that the kernel has taken apart; what is folded is only made once it is unfolded.
const jsonTree = ([name, kind, value], isOpen = false) => {
  const label = name === null ? "" : `${name}: `;
  if (kind !== "object" && kind !== "array") return el("div", { class: "xp-leaf" }, el("b", {}, label), kind === "string" ? JSON.stringify(value) : value);
  const inner = el("div");
  let shown = 0;
  const more = el("button", { type: "button", onclick: () => grow() }, "More");
  const grow = () => {
    inner.append(...value.slice(shown, shown + 200).map((part) => jsonTree(part)));
    shown = Math.min(value.length, shown + 200);
    more.hidden = shown === value.length;
  };
  const size = kind === "array" ? `[${value.length}]` : `{${value.length}}`;
  const node = el("details", { class: "xp-tree", open: isOpen }, el("summary", {}, el("b", {}, label), size), inner, more);
  if (isOpen) grow();
  else node.addEventListener("toggle", () => shown || grow(), { once: true });
  return node;
};

const makeOpened = ({ data, cells, state, ask, textOf, isText, step, closed }) => {
  const width = data.configurations.length;
  let sides = [];
  let differing = false;
  const title = el("strong", { tabindex: "-1", class: "xp-title" });
  const button = (text, act, attributes = {}) => el("button", { type: "button", onclick: act, ...attributes }, text);
  const mark = button("Mark differences", () => { differing = !differing; showAll(); }, { "aria-pressed": "false" });
  const bar = el("div", { class: "xp-controls" }, title,
    button("Previous", () => step(-1), { "aria-keyshortcuts": "Alt+ArrowUp", title: "Alt+Up" }),
    button("Next", () => step(1), { "aria-keyshortcuts": "Alt+ArrowDown", title: "Alt+Down" }),
    mark, button("Close", () => close(), { "aria-keyshortcuts": "Escape", title: "Escape" }));
  const asked = el("details", { class: "xp-asked" });
  const columns = el("div", { class: "xp-sides", tabindex: "0", role: "group", "aria-label": "Answers side by side" });
  const node = el("section", { class: "xp-opened", "aria-label": "Opened input", hidden: true }, bar, asked, columns);
  const self = { node, input: null };

  const close = () => {
    self.input = null;
    node.hidden = true;
    closed();
  };
  node.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && event.target.matches("textarea, input")) title.focus(); // what was typed stays
    else if (event.key === "Escape") close();
    else if (event.altKey && event.key === "ArrowUp") step(-1);
    else if (event.altKey && event.key === "ArrowDown") step(1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const makeSide = (configuration) => {
    const { runs, groups } = cells.of(self.input * width + configuration);
    const side = { configuration, run: groups[0]?.[1][0] ?? null, facts: null };
    const name = data.configurations[configuration].name;
    const show = (run) => {
      side.run = run;
      side.facts = null;
      ask({ kind: "open", input: self.input, runs: [run] });
      showAll();
    };
    side.answer = el("div", { class: "xp-answer" });
    side.place = el("span");
    const at = (by) => () => show(runs[(runs.indexOf(side.run) + by + runs.length) % runs.length]);
    let listed = 0;
    const list = el("ul", { class: "xp-groups" });
    const more = button("More answers", () => grow());
    const grow = () => {
      list.append(...groups.slice(listed, listed + 10).map(([answer, own]) => el("li", {},
        button(`${own.length.toLocaleString("en")}× ${textOf(answer).slice(0, 80) || data.statuses[data.status[own[0]]]}`, () => show(own[0])))));
      listed = Math.min(groups.length, listed + 10);
      more.hidden = listed === groups.length;
    };
    grow();
    side.note = makeNotes(side, ask);
    side.node = el("section", { class: "xp-side", "aria-label": name },
      el("div", { class: "xp-name" }, name, configuration === state.baseline && el("span", { class: "xp-badge" }, "baseline")),
      runs.length > 1 && el("div", {}, list, more, el("div", { class: "xp-controls" },
        button("‹", at(-1), { "aria-label": "Previous repeat" }), side.place, button("›", at(1), { "aria-label": "Next repeat" }))),
      side.answer, side.note.node);
    side.place.setAttribute("role", "status");
    side.runs = runs;
    return side;
  };
  const textShown = (side) => side.facts?.text ?? (side.run === null ? "" : textOf(data.answer[side.run]));
  const hasText = (side) => side.run !== null && isText(data.answer[side.run]);
  const baseline = () => sides.find((side) => side.configuration === state.baseline && hasText(side));
  const showSide = (side) => {
    const { facts, answer, runs } = side;
    side.note.node.hidden = !facts;
    if (side.run === null) return answer.replaceChildren(el("em", {}, "no run"));
    side.place.textContent = `${(runs.indexOf(side.run) + 1).toLocaleString("en")} of ${counted(runs.length, "repeat")}`;
    const base = baseline();
    const parts = [];
    if (facts?.prompt) parts.push(el("details", {}, el("summary", {}, "Prompt"), el("div", { class: "xp-text" }, facts.prompt)));
    if (facts?.problem) parts.push(el("div", { class: "xp-text" }, el("strong", {}, facts.problem)));
    if (facts?.streamed && facts.streamed !== facts.text) parts.push(el("div", { class: "xp-text" }, facts.streamed));
    if (differing && base && base !== side && hasText(side)) {
      const [before, after] = [textShown(base), textShown(side)];
      parts.push(el("div", { class: "xp-text" }, ...marked(differences(before, after, 1000))));
    } else if (facts?.tree) parts.push(jsonTree([null, ...facts.tree], true));
    else if (isKnown(facts?.html)) parts.push(el("div", { class: "xp-rendered" }, cleaned(facts.html)));
    else parts.push(el("div", { class: "xp-text" }, textShown(side)));
    if (facts?.steps.length) {
      parts.push(picture(facts.steps), el("details", {}, el("summary", {}, counted(facts.steps.length, "step")),
        el("ol", {}, facts.steps.map((one) => el("li", { class: "xp-text" }, el("b", {}, `${one.lane}: ${one.name}${one.ok === false ? " (failed)" : ""}`), `\n${one.text}`)))));
    } else if (facts?.tools.length) parts.push(el("div", { class: "xp-facts" }, `Tools used: ${facts.tools.join(", ")}`));
    parts.push(el("div", { class: "xp-facts" }, facts ? facts.facts : "The rest is on its way from the kernel…"));
    return answer.replaceChildren(...parts);
  };
  const showAll = () => {
    mark.hidden = !baseline() || width < 2;
    mark.setAttribute("aria-pressed", String(differing));
    sides.forEach(showSide);
  };

  self.open = (input) => {
    self.input = input;
    node.hidden = false;
    title.textContent = `Input ${(input + 1).toLocaleString("en")} of ${data.inputs.length.toLocaleString("en")}`;
    asked.replaceChildren(el("summary", {}, "Prompt"), el("div", { class: "xp-text" }, data.inputs[input].join(" · ")));
    sides = data.configurations.map((_, configuration) => makeSide(configuration));
    columns.replaceChildren(...sides.map((side) => side.node));
    const runs = sides.map((side) => side.run).filter(isKnown);
    for (let start = 0; start < runs.length; start += 20) ask({ kind: "open", input, runs: runs.slice(start, start + 20) });
    showAll();
    title.focus({ preventScroll: true });
    node.scrollIntoView({ block: "nearest" });
  };
  self.hear = (message) => {
    if (message.kind === "opened" && message.input === self.input) {
      asked.replaceChildren(el("summary", {}, message.prompt ? "Prompt" : "Variables"), el("div", { class: "xp-text" }, message.prompt),
        message.variables.length > 0 && el("dl", {}, message.variables.map(([name, value]) => [el("dt", {}, name), el("dd", { class: "xp-text" }, value)])));
      for (const facts of message.runs) {
        const side = sides.find((one) => one.run === facts.run);
        if (!side) continue;
        side.facts = facts;
        side.note.show(facts);
      }
      showAll();
    } else if (message.kind === "kept" || message.kind === "refused") {
      const run = message.run ?? message.of?.run;
      sides.find((one) => one.run === run)?.note.hear(message);
    }
  };
  return self;
};

// What was typed and isn't kept yet, by run: it outlasts the row that is open, and the view.
const drafts = new Map();

// The note and the tags of the run that a side shows.
const makeNotes = (side, ask) => {
  const note = el("textarea", { rows: "2", "aria-label": "Note", oninput: () => typed() });
  const tags = el("span", { class: "xp-tags" });
  const tag = el("input", { "aria-label": "New tag", placeholder: "New tag", oninput: () => typed() });
  const told = el("span", { role: "status", class: "xp-facts" });
  let key = "";
  let kept = { note: "", tags: [] };
  let sent = {};
  const send = (message) => {
    told.textContent = "Keeping…";
    ask({ ...message, run: side.run });
  };
  const keep = () => {
    sent.note = note.value;
    send({ kind: "note", note: note.value });
  };
  const add = () => {
    sent.tag = tag.value.trim();
    if (sent.tag) send({ kind: "tags", tags: [...kept.tags, sent.tag] });
  };
  tag.addEventListener("keydown", (event) => event.key === "Enter" && add());
  const hold = () => {
    if (note.value === kept.note && !tag.value.trim()) drafts.delete(key);
    else drafts.set(key, { note: note.value === kept.note ? null : note.value, tag: tag.value });
    return drafts.has(key);
  };
  const typed = () => { told.textContent = hold() ? "Not kept yet." : ""; };
  const showTags = () => tags.replaceChildren(...kept.tags.map((one) => el("button", { type: "button", "aria-label": `Remove tag ${one}`,
    onclick: () => send({ kind: "tags", tags: kept.tags.filter((other) => other !== one) }) }, `${one} ×`)));
  const node = el("div", { class: "xp-notes", role: "group", "aria-label": "Note and tags" }, el("label", {}, "Note ", note),
    el("button", { type: "button", onclick: keep }, "Keep note"),
    el("div", { class: "xp-controls" }, "Tags ", tags, tag, el("button", { type: "button", onclick: add }, "Add tag")), told);
  const show = (facts) => {
    key = `${side.run} ${facts.id}`;
    kept = facts;
    sent = {};
    const draft = drafts.get(key);
    note.value = draft?.note ?? kept.note;
    tag.value = draft?.tag ?? "";
    told.textContent = draft ? "Not kept yet." : "";
    showTags();
  };
  const hear = (message) => {
    if (message.kind !== "kept") {
      told.textContent = `Not kept: ${message.why}`;
      return;
    }
    // What has been typed since then stays.
    if (note.value === kept.note || note.value === sent.note) note.value = message.note;
    if (message.what === "tags" && tag.value.trim() === sent.tag) tag.value = "";
    kept = message;
    delete sent[message.what === "tags" ? "tag" : "note"];  // of two that were sent at once, the other is still to come
    told.textContent = hold() ? "Kept, but for what is still typed here." : "Kept.";
    showTags();
  };
  return { node, show, hear };
};
