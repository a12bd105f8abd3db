"use strict";
(() => {
  const root = document.documentElement;
  const figures = [...document.querySelectorAll("main figure")];
  const opener = (figure) => figure.querySelector(".open");
  const masked = figures.filter((figure) => figure.querySelector(".mask"));
  const [masks, boxes, theme] = ["masks", "boxes", "theme"].map((id) => document.getElementById(id));
  const dialog = document.querySelector("dialog");
  const stage = dialog.querySelector(".shown");
  let current = 0;
  let enlarged = 0;

  function showState() {
    const on = masked.filter((figure) => !figure.classList.contains("bare")).length;
    masks.setAttribute("aria-pressed", on === 0 ? "false" : on === masked.length ? "true" : "mixed");
    for (const figure of masked) {
      figure.querySelector(".switch").setAttribute("aria-pressed", String(!figure.classList.contains("bare")));
    }
  }

  function toggleOne(figure) {
    if (!masked.includes(figure)) return;
    figure.classList.toggle("bare");
    showState();
    if (dialog.open) enlarge(current);
  }

  function toggleAll() {
    const off = masks.getAttribute("aria-pressed") === "true";
    for (const figure of masked) figure.classList.toggle("bare", off);
    showState();
    if (dialog.open) enlarge(current);
  }

  function toggleBoxes() {
    boxes.setAttribute("aria-pressed", String(root.classList.toggle("boxes")));
  }

  function toggleTheme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  }

  // One figure is in the tab order; arrows move through the others.
  function go(number, focus = true) {
    if (!figures.length) return;
    opener(figures[current]).tabIndex = -1;
    current = Math.max(0, Math.min(figures.length - 1, number));
    opener(figures[current]).tabIndex = 0;
    if (focus) opener(figures[current]).focus();
  }

  function vertical(direction) {
    const middle = (figure) => {
      const { left, width } = figure.getBoundingClientRect();
      return left + width / 2;
    };
    const here = figures[current];
    const tops = figures.map((figure) => figure.offsetTop).filter((top) => (top - here.offsetTop) * direction > 0);
    if (!tops.length) return current;
    const row = direction > 0 ? Math.min(...tops) : Math.max(...tops);
    const away = (figure) => Math.abs(middle(figure) - middle(here));
    const nearest = figures
      .filter((figure) => figure.offsetTop === row)
      .reduce((best, figure) => (away(figure) < away(best) ? figure : best));
    return figures.indexOf(nearest);
  }

  function enlarge(number) {
    go(number, false);
    enlarged = current;
    const copy = figures[current].cloneNode(true);
    copy.removeAttribute("id");
    stage.replaceChildren(copy);
    stage.firstChild.classList.add("shown");
    if (!dialog.open) dialog.showModal();
    opener(copy).tabIndex = 0;
    opener(copy).focus();
  }

  function close() {
    dialog.close();
  }

  dialog.addEventListener("close", () => {
    stage.replaceChildren();
    go(enlarged); // the browser has put the focus back to where it was when this was opened
  });

  document.addEventListener("click", (event) => {
    const figure = event.target.closest("figure");
    if (event.target.closest(".switch")) toggleOne(dialog.open ? figures[current] : figure);
    else if (event.target.closest(".open")) dialog.open ? close() : enlarge(figures.indexOf(figure));
    else if (event.target === dialog) close();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const letter = { m: toggleAll, b: toggleBoxes, t: toggleTheme }[event.key.toLowerCase()];
    if (letter) {
      letter();
      return;
    }
    const onPhoto = event.target.closest?.(".open");
    if (!onPhoto && event.target !== document.body) return;
    const move = dialog.open ? enlarge : go;
    const step = {
      ArrowRight: () => move(current + 1),
      ArrowLeft: () => move(current - 1),
      ArrowDown: () => move(dialog.open ? current + 1 : vertical(1)),
      ArrowUp: () => move(dialog.open ? current - 1 : vertical(-1)),
      Home: () => move(0),
      End: () => move(figures.length - 1),
      " ": () => toggleOne(figures[current]),
      Enter: () => (dialog.open ? close() : enlarge(current)),
    }[event.key];
    if (!step) return;
    event.preventDefault();
    step();
  });

  // Some browsers press a button when Space is let go, whatever became of its going down.
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && event.target.closest?.(".open")) event.preventDefault();
  });

  // A click has moved the focus: arrows go on from there.
  document.addEventListener("focusin", (event) => {
    const number = figures.indexOf(event.target.closest("main figure"));
    if (number >= 0 && number !== current) go(number, false);
  });

  masks.addEventListener("click", toggleAll);
  boxes.addEventListener("click", toggleBoxes);
  theme.addEventListener("click", toggleTheme);
  for (const figure of figures) opener(figure).tabIndex = -1;
  go(0, false);
  showState();
  document.querySelector("nav").hidden = false;
  document.querySelector("footer").hidden = false;
})();
