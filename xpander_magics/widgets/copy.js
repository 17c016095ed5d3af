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
  const giveKeys = keepKeys(".xpander-panel :is(select, button, input[type=checkbox])");
  // The keys that run a cell of code, too. All that was typed before is sent before the click.
  const runs = (event) => {
    const panel = event.target.closest?.(".xpander-panel");
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !panel?.contains(root)) return;
    event.preventDefault();
    event.stopPropagation();
    panel.querySelector("button.mod-primary")?.click();
  };
  document.addEventListener("keydown", runs, true);
  model.send({ kind: "shown", view });
  return () => {
    document.removeEventListener("keydown", runs, true);
    giveKeys();
    showStandIn();
    model.off("change:text change:problem", clear);
    model.send({ kind: "hidden", view });
  };
};

export default { render };
