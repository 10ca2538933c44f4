(() => {
  "use strict";
  const root = document.documentElement;

  // Light and dark: as the system says, until the button is pressed.
  const button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(isDark()));
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
  });
  system.addEventListener("change", label);
  label();

  // Charts are SVG whose colours are those of the style sheet, so that a switch needs no drawing.
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const draw = (box) => {
    const spec = specs[box.dataset.chart];
    const narrow = box.clientWidth < 480;
    spec.config.legend.columns = narrow ? 2 : 4;
    return vegaEmbed(box, spec, { actions: false, renderer: "svg", mode: "vega-lite" });
  };
  const drawn = [...document.querySelectorAll("[data-chart]")].map(draw);
  Promise.all(drawn).then(() => { root.dataset.ready = "true"; });

  // Keyboard: in a chart, the arrows read one mark after the other.
  const isData = (mark) => mark.getAttribute("aria-label") && !mark.closest(".role-axis, .role-legend, .role-title");
  const read = (figure, step) => {
    const marks = [...figure.querySelectorAll('.role-mark [role="graphics-symbol"], .role-mark [role="img"]')].filter(isData);
    if (!marks.length) return;
    const last = figure.dataset.at === undefined ? (step > 0 ? -1 : 0) : Number(figure.dataset.at);
    const at = (last + step + marks.length) % marks.length;
    marks.forEach((mark, number) => { mark.style.outline = number === at ? "2px solid var(--ink)" : ""; });
    figure.dataset.at = at;
    figure.querySelector(".reading").textContent = marks[at].getAttribute("aria-label");
  };
  for (const figure of document.querySelectorAll("figure")) {
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      read(figure, step);
    });
  }

  // Tables: a click on a head sorts; empty cells come last. The filter takes words, and conditions
  // on numbers such as `loss < 0.1`.
  const value = (cell) => {
    if (!cell.classList.contains("number")) return cell.textContent;
    return cell.dataset.value === "" ? null : Number(cell.dataset.value.replace("inf", "Infinity"));
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  const sort = (table, head) => {
    const column = head.cellIndex;
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
    rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : direction * compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  const operators = {
    "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
    "=": (a, b) => a === b, "==": (a, b) => a === b,
  };
  const test = (table, part) => {
    const found = part.match(/^(.+?)\s*(<=|>=|==|=|<|>)\s*(-?[\d.]+(?:e[-+]?\d+)?)$/i);
    const titles = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim().toLowerCase());
    const column = found ? titles.indexOf(found[1].trim().toLowerCase()) : -1;
    if (found && column < 0) return found[1].trim();
    if (!found) return (row) => row.textContent.toLowerCase().includes(part);
    return (row) => {
      const cell = row.cells[column];
      const own = cell.classList.contains("number") ? value(cell) : Number(cell.textContent);
      return own !== null && operators[found[2]](own, Number(found[3]));
    };
  };
  const filter = (table, text) => {
    const tests = text.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean)
      .map((part) => test(table, part));
    const count = document.querySelector(`[data-count="${table.id}"]`);
    const unknown = tests.find((one) => typeof one === "string");
    if (unknown !== undefined) {
      count.textContent = `no column "${unknown}": nothing is filtered`;
      for (const row of table.tBodies[0].rows) row.hidden = false;
      return;
    }
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !tests.every((matches) => matches(row));
      shown += !row.hidden;
    }
    const all = table.tBodies[0].rows.length;
    count.textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
  };
  for (const table of document.querySelectorAll("table")) {
    for (const head of table.tHead.rows[0].cells) {
      head.firstElementChild.addEventListener("click", () => sort(table, head));
    }
    const input = document.querySelector(`[data-filter="${table.id}"]`);
    input.addEventListener("input", () => filter(table, input.value));
    filter(table, "");
  }
})();
