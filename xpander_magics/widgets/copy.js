// "Copy as cell": the text is here already, since a browser lets a page write the clipboard within a click alone.
const render = ({ model, el: root }) => {
  const view = crypto.randomUUID?.() ?? String(Math.random());
  const said = el("span", { role: "status" });
  const text = el("textarea", { readonly: true, rows: "4", "aria-label": "The cell that does the same", hidden: true });
  const copy = el("button", { type: "button", onclick: () => write() }, "Copy as cell");
  root.append(el("div", { class: "xpander xpander-copy" }, copy, said, text));

  const write = async () => {
    const [cell, problem] = [model.get("text"), model.get("problem")];
    text.value = cell;
    text.hidden = true;
    if (problem) return (said.textContent = problem);
    try {
      await navigator.clipboard.writeText(cell);
      said.textContent = "Copied: paste it into a cell.";
    } catch {
      text.hidden = false; // no clipboard on a page without https, or none allowed
      text.focus();
      text.select();
      said.textContent = "The browser keeps its clipboard: copy the text below.";
    }
  };
  const clear = () => { said.textContent = ""; text.hidden = true; };
  model.on("change:text change:problem", clear);
  const showStandIn = standIn(root, model);
  // JupyterLab takes keys for its own commands where no text is typed: an arrow in a list would leave the cell, an x
  // on a button would cut it out. Not so within what has this attribute.
  const keepKeys = ({ target }) => {
    if (target.matches?.(".xpander-panel :is(select, button, input[type=checkbox])")) {
      target.setAttribute("data-lm-suppress-shortcuts", "true");
    }
  };
  document.addEventListener("focusin", keepKeys);
  model.send({ kind: "shown", view });
  return () => {
    document.removeEventListener("focusin", keepKeys);
    showStandIn();
    model.off("change:text change:problem", clear);
    model.send({ kind: "hidden", view });
  };
};

export default { render };
