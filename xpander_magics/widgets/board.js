// The board: inputs by configurations. Only what is in sight is in the document; all text gets there as text.
const grouped = new Intl.NumberFormat("en").format; // made once: toLocaleString takes most of a frame
const amount = {
  seconds: (value) => `${value.toFixed(value < 1 ? 2 : 1)} s`,
  tokens: (value) => `${grouped(value)} tok`,
  cost: (value) => `$${value >= 0.01 || !value ? value.toFixed(2) : value.toPrecision(2)}`,
  score: (value) => String(Math.round(value * 1000) / 1000),
};
const isKnown = (value) => value !== null && value !== undefined;
const counted = (count, what) => `${grouped(count)} ${what}${count === 1 ? "" : "s"}`;
const median = (values) => {
  const sorted = values.toSorted ? values.toSorted((a, b) => a - b) : [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// The runs as cells: which runs are where, what their answers are, how they differ. Cell `i * width + c` is that of
// input i and configuration c.
const makeCells = (data) => {
  const width = data.configurations.length;
  const runs = new Array(data.inputs.length * width);
  data.input.forEach((input, run) => (runs[input * width + data.configuration[run]] ??= []).push(run));
  const known = new Array(runs.length);
  // Why a run failed isn't compared with an answer.
  const completed = new Set(data.answer.filter((_, run) => data.statuses[data.status[run]].startsWith("completed")));
  const isText = (answer) => answer >= 0 && completed.has(answer);
  const of = (cell) => {
    if (known[cell]) return known[cell];
    const own = runs[cell] ?? [];
    const byAnswer = new Map();
    for (const run of own) {
      const answer = data.answer[run];
      if (byAnswer.has(answer)) byAnswer.get(answer).push(run);
      else byAnswer.set(answer, [run]);
    }
    const groups = [...byAnswer].sort((a, b) => b[1].length - a[1].length);
    const given = groups.map(([answer]) => answer).filter(isText);
    const found = { runs: own, groups, key: given.sort((a, b) => a - b).join(), kinds: given.length };
    known[cell] = found;
    return found;
  };
  const values = (cell, column) => of(cell).runs.map((run) => column[run]).filter(isKnown);
  const sum = (found) => (found.length ? found.reduce((a, b) => a + b, 0) : null);
  const figures = {
    seconds: (cell) => { const found = values(cell, data.seconds); return found.length ? median(found) : null; },
    tokens: (cell) => sum(values(cell, data.tokens)),
    cost: (cell) => sum(values(cell, data.cost)),
  };
  const score = (cell, scorer) => {
    const found = values(cell, data.scores[scorer]);
    return found.length ? sum(found) / found.length : null;
  };
  const differs = (input, configuration, baseline) => {
    if (baseline === null || baseline === configuration) return false;
    const [own, other] = [of(input * width + configuration).key, of(input * width + baseline).key];
    return Boolean(own && other && own !== other);
  };
  // Without a baseline, or where there is nothing besides it: whether any two answers to this input differ.
  const isDifferent = (input, baseline) => {
    const all = data.configurations.map((_, configuration) => configuration);
    if (baseline !== null && width > 1) return all.some((configuration) => differs(input, configuration, baseline));
    const cells = all.map((configuration) => of(input * width + configuration)).filter((cell) => cell.kinds);
    return cells.some((cell) => cell.kinds > 1 || cell.key !== cells[0].key);
  };
  return { width, of, isText, figures, score, differs, isDifferent, any: (cell, column) => of(cell).runs.some((run) => column[run]) };
};

const makeBoard = (box, { data, words, sweep }, ask) => {
  const cells = makeCells(data);
  const { isText } = cells;
  const { configurations, inputs, scorers } = data;
  const width = configurations.length;
  const whole = new Map(); // the answers whose whole text is here
  const cut = new Set(data.cut);
  const asked = new Set();
  const compared = new Map();
  const state = { filter: "All", words: "", found: null, baseline: width > 1 ? 0 : null, by: "", of: 0, up: false };
  const textOf = (answer) => whole.get(answer) ?? data.answers[answer] ?? "";
  const isWhole = (answer) => !cut.has(answer) || whole.has(answer);
  const single = `xpander-${Math.random().toString(36).slice(2)}`;

  // ---- which inputs, in which order

  const passes = {
    All: () => true,
    Failures: (input) => configurations.some((_, c) => cells.any(input * width + c, data.failure)),
    Errors: (input) => configurations.some((_, c) => cells.any(input * width + c, data.error)),
    Different: (input) => cells.isDifferent(input, state.baseline),
  };
  const texts = inputs.map((values) => values.join(" ").toLowerCase());
  const lowered = data.answers.map((text) => text.toLowerCase());
  const hasWords = (input) => {
    if (!state.words || state.found?.has(input)) return true;
    const wanted = state.words.toLowerCase();
    if (texts[input].includes(wanted)) return true;
    return configurations.some((_, c) =>
      cells.of(input * width + c).groups.some(([answer]) => lowered[answer]?.includes(wanted)));
  };
  const figureOf = (input) => {
    const cell = input * width + state.of;
    if (state.by === "differences") {
      const own = cells.differs(input, state.of, state.baseline) ? 1000 : 0;
      return own + configurations.filter((_, c) => cells.differs(input, c, state.baseline)).length;
    }
    if (state.by.startsWith("score")) return cells.score(cell, Number(state.by.slice(5)));
    return cells.figures[state.by](cell);
  };
  let order = inputs.map((_, input) => input);
  const arrange = () => {
    order = inputs.map((_, input) => input).filter((input) => passes[state.filter](input) && hasWords(input));
    if (!state.by) return state.up ? order.reverse() : order;
    const figures = new Map(order.map((input) => [input, figureOf(input)]));
    const sign = state.up ? 1 : -1;
    // What isn't known comes last, whichever way.
    return order.sort((a, b) => {
      const [x, y] = [figures.get(a), figures.get(b)];
      if (!isKnown(x) || !isKnown(y)) return isKnown(y) - isKnown(x) || a - b;
      return sign * (x - y) || a - b;
    });
  };

  // ---- the controls

  const counts = {};
  const countAll = () => {
    for (const [name, test] of Object.entries(passes)) {
      counts[name].textContent = inputs.reduce((sum, _, input) => sum + (test(input) ? 1 : 0), 0).toLocaleString("en");
    }
  };
  const meanings = { Failures: words.failure, Errors: words.error };
  const filters = Object.keys(passes).map((name) =>
    el("label", { title: meanings[name] },
      el("input", { type: "radio", name: single, value: name, checked: name === "All", onchange: () => { state.filter = name; refresh(); } }),
      el("span", {}, `${name} `, (counts[name] = el("b")))));
  const search = el("input", { type: "search", "aria-label": "Search inputs and answers", placeholder: "Search" });
  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.words = search.value.trim();
      state.found = null;
      if (state.words) ask({ kind: "search", words: state.words }); // here are but the beginnings of long texts
      refresh();
    }, 150);
  });
  const choice = (label, name, options, change) =>
    el("label", {}, el("span", {}, `${label} `),
      el("select", { "aria-label": name, onchange: (event) => { change(event.target.value); refresh(); } },
        options.map(([value, text]) => el("option", { value }, text))));
  const known = (name) => data[name].some(isKnown);
  const sorts = [["", "order of inputs"], ...scorers.map((name, n) => [`score${n}`, `score ${name}`]),
    ...["seconds", "tokens", "cost"].filter(known).map((name) => [name, name]),
    ...(width > 1 ? [["differences", "differences"]] : [])];
  const sortOf = choice("of", "Configuration to sort by", configurations.map(({ name }, c) => [String(c), name]), (value) => (state.of = Number(value)));
  sortOf.hidden = true;
  const sortBy = choice("Sort by", "Sort by", sorts, (value) => {
    state.by = value;
    state.up = false;
    sortOf.hidden = !value || width === 1;
  });
  const direction = el("button", { type: "button", onclick: () => { state.up = !state.up; refresh(); } });
  const told = el("div", { class: "xp-facts", role: "status" });
  const controls = el("div", { class: "xp-controls" },
    el("div", { role: "radiogroup", "aria-label": "Filter", class: "xp-filters" }, filters), search, sortBy, sortOf, direction);
  const legend = el("details", { class: "xp-facts" }, el("summary", {}, "What is counted"),
    el("ul", {}, el("li", {}, words.equal), el("li", {}, `Failures: ${words.failure}.`), el("li", {}, `Errors: ${words.error}.`),
      el("li", {}, "Different: an answer differs from the baseline's; without a baseline, from another. What failed is compared with nothing."),
      el("li", {}, "Of repeats: the mean score, the median of the seconds, the sums of tokens and cost.")));

  // ---- the grid

  const body = el("div", { class: "xp-body", role: "rowgroup" });
  const head = el("div", { class: "xp-row xp-head", role: "row", "aria-rowindex": 1 });
  const grid = el("div", { class: "xp-grid", role: "grid", "aria-colcount": width + 1,
    "aria-label": `Runs of sweep ${sweep}: inputs by configurations` }, el("div", { role: "rowgroup", class: "xp-headgroup" }, head), body);
  box.append(controls, told, grid, legend);
  const rows = new Map(); // those in the document, by their places in the order
  let active = { row: 0, column: 0 };
  let size = { row: 90, first: 200, column: 240, lines: 3, from: 0, to: width };

  const summaryOf = ({ runs, failures, scores, seconds, tokens, cost }) => [
    ...scores.map((score, n) => isKnown(score) && `${scorers[n]} ${amount.score(score)}`),
    isKnown(seconds) && amount.seconds(seconds), isKnown(tokens) && amount.tokens(tokens), isKnown(cost) && amount.cost(cost),
    counted(runs, "run"), failures && counted(failures, "failure")].filter(Boolean).join(" · ");
  const longest = (some) => some.reduce((most, text) => Math.max(most, text.length), 0);
  const letters = {
    // Where answers differ, both are shown.
    answer: longest(data.answers.filter((_, answer) => isText(answer))) * (width > 1 ? 2 : 1),
    input: longest(inputs.map((values) => values.join(" · "))),
    facts: longest(configurations.map((one) => summaryOf(one))),
  };
  const groups = inputs.reduce((most, _, input) => Math.max(most, ...configurations.map((_, c) => cells.of(input * width + c).groups.length)), 1);
  // All rows are of one height, which is what makes scrolling cheap: up to three lines of answers, if there is so much.
  const measure = () => {
    const font = parseFloat(getComputedStyle(grid).fontSize) || 13;
    const room = grid.clientWidth;
    const least = Math.round(font * 15);
    const first = Math.round(Math.max(Math.min(font * 12, room * 0.34), Math.min(room * 0.34, font * 22, room - width * least)));
    const column = Math.max(Math.floor((room - first) / width), least);
    const linesOf = (count, space, most) => Math.max(1, Math.min(most, Math.ceil((count * font * 0.55) / (space - font)))) || most;
    const lines = Math.max(Math.min(groups, 3), linesOf(letters.answer, column, 3), linesOf(letters.input, first, 3) - 1);
    const facts = linesOf(letters.facts * 0.85, column, 2); // in smaller type
    size = { ...size, row: Math.round(font * (2.3 + 1.45 * lines)), first, column, lines };
    grid.style.setProperty("--xp-lines", lines);
    grid.style.setProperty("--xp-inputlines", lines + 1);
    grid.style.setProperty("--xp-head", `${Math.round(font * (2.5 + 1.3 * facts + (width > 1 ? 2 : 0)))}px`);
    grid.style.setProperty("--xp-first", `${first}px`);
    grid.style.setProperty("--xp-column", `${column}px`);
    grid.style.setProperty("--xp-row", `${size.row}px`);
    for (const part of [head, body]) part.style.width = `${first + column * width}px`;
  };
  const columnsInSight = () => {
    const from = Math.max(0, Math.floor(grid.scrollLeft / size.column) - 1);
    return [from, Math.min(width, Math.ceil((grid.scrollLeft + grid.clientWidth) / size.column) + 1)];
  };
  const place = (node, column) => {
    if (column) node.style.left = `${size.first + (column - 1) * size.column}px`;
    node.dataset.column = column;
    node.setAttribute("aria-colindex", column + 1);
    return node;
  };
  const drawHead = () => {
    const columns = configurations.slice(size.from, size.to).map((one, n) => {
      const c = size.from + n;
      const button = el("button", { type: "button", tabindex: "-1", class: "xp-baseline", "aria-pressed": String(state.baseline === c),
        "aria-label": `Baseline: ${one.name}`, onclick: () => setBaseline(state.baseline === c ? null : c) }, state.baseline === c ? "✓ Baseline" : "Baseline");
      const sorted = state.by && state.of === c ? (state.up ? "ascending" : "descending") : undefined;
      return place(el("div", { role: "columnheader", class: "xp-cell", "aria-sort": sorted, tabindex: width > 1 ? undefined : "-1" },
        el("div", { class: "xp-name", title: one.name }, one.name), el("div", { class: "xp-facts", title: summaryOf(one) }, summaryOf(one)),
        width > 1 && button), c + 1);
    });
    const first = place(el("div", { role: "columnheader", class: "xp-input", tabindex: "-1" }, el("div", { class: "xp-name" }, data.names.join(" · "))), 0);
    head.replaceChildren(first, ...columns);
    if (active.row === -1) mark(active, 0);
  };
  const setBaseline = (baseline) => {
    state.baseline = baseline;
    refresh();
    focus();
  };

  const namesOf = (answer, run) => {
    if (answer < 0) return [el("em", {}, data.statuses[data.status[run]])];
    const status = data.statuses[data.status[run]];
    return [status === "completed" ? null : el("strong", {}, `${status} `), textOf(answer) || el("em", {}, "(empty)")];
  };
  const baselineAnswer = (input) => (state.baseline === null ? -1 : cells.of(input * width + state.baseline).groups[0]?.[0] ?? -1);
  const pieces = (input, configuration) => {
    const [before, after] = [baselineAnswer(input), cells.of(input * width + configuration).groups[0]?.[0] ?? -1];
    if (before === after || !isText(before) || !isText(after) || !isWhole(before) || !isWhole(after)) return null;
    const key = `${before} ${after}`;
    if (!compared.has(key)) {
      if (compared.size > 5000) compared.clear();
      const found = differences(textOf(before).slice(0, 4000), textOf(after).slice(0, 4000), 120);
      // Where less than half is the same, the answer itself says more; opened, the row marks all of it.
      const count = (kind) => found.filter(([of]) => of === kind).reduce((sum, [, text]) => sum + text.split(" ").length, 0);
      compared.set(key, 2 * count("=") >= Math.max(count("-"), count("+")) ? shortened(found) : null);
    }
    return compared.get(key);
  };
  const fill = (node, input, configuration) => {
    const cell = input * width + configuration;
    const { runs, groups } = cells.of(cell);
    if (!runs.length) return node.replaceChildren(el("div", { class: "xp-facts" }, "no run"));
    const differs = cells.differs(input, configuration, state.baseline);
    const repeated = runs.length > 1;
    const shown = groups.slice(0, 3);
    const lines = shown.map(([answer, own], n) => {
      const found = n === 0 && differs ? pieces(input, configuration) : null;
      const status = data.statuses[data.status[own[0]]];
      const text = found ? [status !== "completed" && el("strong", {}, `${status} `), ...marked(found)] : namesOf(answer, own[0]);
      const line = el("div", { class: "xp-clamp" }, repeated && el("b", {}, `${grouped(own.length)}× `), ...text);
      line.style.webkitLineClamp = n ? 1 : size.lines - shown.length + 1;
      return line;
    });
    const figures = [
      ...scorers.map((name, n) => { const score = cells.score(cell, n); return isKnown(score) && `${name} ${amount.score(score)}`; }),
      ...Object.entries(cells.figures).map(([name, figure]) => { const value = figure(cell); return isKnown(value) && amount[name](value); }),
    ].filter(Boolean).join(" · ");
    return node.replaceChildren(el("div", { class: "xp-answers" }, lines),
      el("div", { class: "xp-facts" },
        configuration === state.baseline ? el("span", { class: "xp-badge" }, "baseline") : null, differs ? el("span", { class: "xp-badge" }, "≠ differs") : null,
        cells.any(cell, data.failure) ? el("span", { class: "xp-badge xp-bad" }, "✗ failure") : null, cells.any(cell, data.noted) ? el("span", { class: "xp-badge" }, "✎ noted") : null,
        groups.length > 3 && el("span", { class: "xp-badge" }, `${(groups.length - 3).toLocaleString("en")} more`), figures));
  };
  const makeRow = (row) => {
    const input = order[row];
    const node = el("div", { class: "xp-row", role: "row", "aria-rowindex": row + 2 });
    node.style.transform = `translateY(${row * size.row}px)`;
    const first = place(el("div", { role: "rowheader", class: "xp-input", tabindex: "-1" },
      el("div", { class: "xp-clamp" }, el("span", { class: "xp-number" }, `${input + 1} `),
        inputs[input].map((text, n) => [n ? " · " : "", data.names.length > 1 ? el("i", {}, `${data.names[n]}: `) : null, text].filter(isKnown)).flat())), 0);
    node.append(first);
    for (let c = size.from; c < size.to; c++) {
      const cell = place(el("div", { role: "gridcell", class: "xp-cell", tabindex: "-1" }), c + 1);
      fill(cell, input, c);
      node.append(cell);
    }
    return node;
  };
  let drawnAt = 0;
  let resting = 0;
  const draw = () => {
    if (!grid.clientWidth) return; // out of sight
    const [from, to] = columnsInSight();
    if (from !== size.from || to !== size.to) {
      size = { ...size, from, to };
      const held = grid.contains(document.activeElement);
      drawHead();
      redraw();
      if (held) focus();
      return;
    }
    // As much again above and below; while it flies past, what is in sight alone.
    const screen = Math.ceil(grid.clientHeight / size.row);
    const flies = Math.abs(grid.scrollTop - drawnAt) > grid.clientHeight / 2;
    const beyond = flies ? 1 : screen;
    drawnAt = grid.scrollTop;
    clearTimeout(resting);
    if (flies) resting = setTimeout(draw, 100);
    const first = Math.max(0, Math.floor(grid.scrollTop / size.row) - beyond);
    const last = Math.min(order.length, Math.floor(grid.scrollTop / size.row) + screen + beyond);
    const wanted = (row) => (row >= first && row < last) || row === active.row;
    for (const [row, node] of rows) {
      if (!wanted(row)) {
        node.remove();
        rows.delete(row);
      }
    }
    const added = document.createDocumentFragment();
    const add = (row) => {
      if (row < 0 || row >= order.length || rows.has(row)) return;
      const node = makeRow(row);
      rows.set(row, node);
      added.append(node);
    };
    add(active.row);
    for (let row = first; row < last; row++) add(row);
    body.append(added);
    mark(active, 0);
    clearTimeout(fetching);
    fetching = setTimeout(fetchTexts, 120);
  };
  const redraw = () => {
    rows.clear();
    body.replaceChildren();
    draw();
  };
  // Differences need whole texts: of what is in sight, once the scrolling has come to rest.
  let fetching = 0;
  const fetchTexts = () => {
    const wanted = new Set();
    for (const row of rows.keys()) {
      const before = baselineAnswer(order[row]);
      for (let c = size.from; before >= 0 && c < size.to; c++) {
        if (!cells.differs(order[row], c, state.baseline)) continue;
        for (const answer of [before, cells.of(order[row] * width + c).groups[0][0]]) {
          if (isText(answer) && !isWhole(answer) && !asked.has(answer)) wanted.add(answer);
        }
      }
    }
    const answers = [...wanted].slice(0, 200);
    if (!answers.length) return;
    answers.forEach((answer) => asked.add(answer));
    ask({ kind: "texts", answers });
  };

  // ---- by keyboard: one cell of the grid is reached by Tab, the others by arrows

  const nodeAt = ({ row, column }) => {
    const within = row === -1 ? head : rows.get(row);
    const node = within?.querySelector(`[data-column="${column}"]`);
    return node?.querySelector("button") ?? node;
  };
  const mark = (at, index) => nodeAt(at)?.setAttribute("tabindex", String(index));
  const activate = (at) => {
    mark(active, -1);
    active = at;
    draw();
    mark(active, 0);
  };
  const focus = () => nodeAt(active)?.focus({ preventScroll: true });
  const goTo = (row, column) => {
    const at = { row: Math.max(-1, Math.min(row, order.length - 1)), column: Math.max(0, Math.min(column, width)) };
    if (at.row >= 0) {
      const top = at.row * size.row;
      const room = grid.clientHeight - head.offsetHeight;
      if (top < grid.scrollTop) grid.scrollTop = top;
      else if (top + size.row > grid.scrollTop + room) grid.scrollTop = top + size.row - room;
    }
    if (at.column > 0) {
      const left = (at.column - 1) * size.column;
      const room = grid.clientWidth - size.first;
      if (left < grid.scrollLeft) grid.scrollLeft = left;
      else if (left + size.column > grid.scrollLeft + room) grid.scrollLeft = left + size.column - room;
    }
    activate(at);
    focus();
  };
  grid.addEventListener("keydown", (event) => {
    const { row, column } = active;
    const page = Math.max(1, Math.floor((grid.clientHeight - head.offsetHeight) / size.row) - 1);
    const far = event.ctrlKey || event.metaKey;
    const moves = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      PageUp: [Math.max(0, row - page), column], PageDown: [row + page, column],
      Home: far ? [0, 0] : [row, 0], End: far ? [order.length - 1, width] : [row, width],
    };
    if (moves[event.key]) goTo(...moves[event.key]);
    else if (row >= 0 && (event.key === "Enter" || event.key === " ")) open(order[row]);
    else return;
    event.preventDefault();
  });
  const pointed = (event) => {
    const node = event.target.closest("[data-column]");
    const row = node?.closest(".xp-row");
    return row && { row: Number(row.getAttribute("aria-rowindex")) - 2, column: Number(node.dataset.column) };
  };
  grid.addEventListener("focusin", (event) => {
    const at = pointed(event);
    if (at && (at.row !== active.row || at.column !== active.column)) activate(at);
  });
  grid.addEventListener("click", (event) => {
    const at = pointed(event);
    if (at && at.row >= 0 && !String(getSelection())) open(order[at.row]);
  });
  let frame = 0;
  grid.addEventListener("scroll", () => { frame ||= requestAnimationFrame(() => { frame = 0; draw(); }); }, { passive: true });
  const watch = new ResizeObserver(() => {
    measure();
    body.style.height = `${order.length * size.row}px`;
    drawHead();
    redraw();
  });

  const refresh = () => {
    const input = order[active.row];
    arrange();
    const row = order.indexOf(input);
    active = { row: active.row === -1 ? -1 : Math.max(row, 0), column: active.column };
    grid.setAttribute("aria-rowcount", order.length + 1);
    body.style.height = `${order.length * size.row}px`;
    direction.textContent = state.up ? "▲ ascending" : "▼ descending";
    direction.hidden = !state.by;
    const empty = order.length ? "" : inputs.length ? "Nothing matches: " : "There are no runs: ";
    told.textContent = `${empty}${order.length.toLocaleString("en")} of ${counted(inputs.length, "input")} · ${counted(data.input.length, "run")} · sweep ${sweep}`;
    countAll();
    drawHead();
    redraw();
  };

  // ---- a row opened

  const opened = makeOpened({ data, cells, state, ask, textOf, isText, step: (by) => {
    const row = order.indexOf(opened.input) + by;
    if (opened.input !== null && order[row] !== undefined) {
      activate({ row, column: active.column });
      open(order[row]);
    }
  }, closed: () => focus() });
  box.insertBefore(opened.node, legend);
  const open = (input) => opened.open(input);

  const hear = (message) => {
    if (message.kind === "texts") {
      for (const [answer, text] of message.texts) whole.set(answer, text);
      for (const [row, node] of rows) {
        for (const cell of node.querySelectorAll(".xp-cell")) fill(cell, order[row], Number(cell.dataset.column) - 1);
      }
    } else if (message.kind === "found" && message.words === state.words) {
      state.found = new Set(message.inputs);
      refresh();
    } else if (message.kind === "kept") {
      data.noted[message.run] = message.note || message.tags.length ? 1 : 0;
      opened.hear(message);
      redraw();
    } else opened.hear(message);
  };
  measure();
  refresh();
  watch.observe(grid);
  return { hear, close: () => watch.disconnect() };
};

// The pieces of a difference for a small place: they begin shortly before the first that differs.
const shortened = (pieces) => {
  const found = [];
  let room = 70; // words
  for (const [number, [kind, text]] of pieces.entries()) {
    const words = text.split(" ");
    const shown = kind === "=" && number === 0 && words.length > 8 ? ["…", ...words.slice(-5)] : kind === "=" && words.length > 14 ? [...words.slice(0, 6), "…", ...words.slice(-5)] : words;
    found.push([kind, shown.slice(0, room).join(" ")]);
    room -= shown.length;
    if (room <= 0) break;
  }
  return found;
};

const render = ({ model, el: root }) => {
  const box = el("div", { class: "xpander xpander-board" });
  const view = Math.random().toString(36).slice(2);
  let board = null;
  let showAgain = null;
  // The notebook's own keys (such as d d, which deletes a cell) are not for what is typed here; but those that save it
  // are. JupyterLab is told by `keepKeys`, the classic notebook listens further out.
  box.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
  const giveKeys = keepKeys(".xpander-board :is(button, select, summary, input, [tabindex])");
  root.append(box);
  const ask = (message) => model.send({ to: view, ...message });
  const hear = (message) => {
    if (message.to && message.to !== view) return;
    if (message.kind === "data") {
      board?.close();
      box.replaceChildren();
      board = makeBoard(box, message, ask);
      showAgain ??= standIn(root, model);
    } else board?.hear(message);
  };
  const close = () => {
    board?.close();
    showAgain?.();
    board = showAgain = null;
  };
  // A kernel that was restarted knows nothing of these runs: what stands in for the board says more than it could.
  const leave = () => {
    if (model.comm_live === true) return;
    close();
    box.remove();
  };
  model.on("msg:custom", hear);
  model.on("comm_live_update", leave);
  ask({ kind: "ready" });
  return () => {
    model.off("msg:custom", hear);
    model.off("comm_live_update", leave);
    giveKeys();
    close();
  };
};

export default { render };
