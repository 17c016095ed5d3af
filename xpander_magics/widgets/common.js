// Put before each front end: anywidget takes one module, which can't import its neighbours.

// An element. Children that are strings become text, never markup: that is what makes hostile text harmless.
const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return node;
};

// HTML that the kernel has cleaned (`markup.safe_html`), and nothing else, as nodes.
const cleaned = (html) => {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
};

// Hides what stands in for this view where no widget can run, with the output that holds it, whenever that comes;
// returns what shows it again.
const standIn = (root, model) => {
  const it = `.${CSS.escape(model.get("stand_in") || "xpander-static-none")}`;
  const outputs = [".jp-OutputArea-child", ".output_area"].map((output) => `${output}:has(${it})`);
  const hides = el("style", {}, `${[it, ...outputs].join(", ")} { display: none !important; }`);
  root.append(hides);
  return () => hides.remove();
};

// JupyterLab takes keys for its own commands where no text is typed: an arrow in a list would leave the cell, an x on a
// button would cut it out. Not so on what has this attribute itself; and it leaves the focus there when another cell is
// clicked, whose keys would then do nothing. `ours` selects what takes the focus; returns what ends it.
const keepKeys = (ours) => {
  const keep = ({ target }) => target.matches?.(ours) && target.setAttribute("data-lm-suppress-shortcuts", "true");
  // But for those with Ctrl or ⌘, such as the one that saves; heard before JupyterLab hears them.
  const choose = (event) => {
    const { target, ctrlKey, metaKey } = event;
    if (!target.matches?.(ours)) return;
    if (ctrlKey || metaKey) target.removeAttribute("data-lm-suppress-shortcuts");
    else keep(event);
  };
  const letGo = ({ target }) => {
    const at = document.activeElement;
    if (at?.matches(ours) && !at.contains(target)) at.blur();
  };
  document.addEventListener("focusin", keep);
  window.addEventListener("keydown", choose, true);
  document.addEventListener("pointerdown", letGo, true);
  return () => {
    document.removeEventListener("focusin", keep);
    window.removeEventListener("keydown", choose, true);
    document.removeEventListener("pointerdown", letGo, true);
  };
};

// The way to the kernel where it is too busy to read messages; the same as the front end's own stop button.
const interruptKernel = (model) => {
  const manager = model.widget_manager;
  const kernel = manager?.kernel ?? manager?.context?.sessionContext?.session?.kernel ?? manager?.comm_manager?.kernel;
  kernel?.interrupt?.();
};
