"use strict";
{
  const table = document.getElementById("runs");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = rows.map((row) => row.textContent.toLowerCase() + " " + [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" "));
  const value = (row, column) => row.cells[column].dataset.order ?? row.cells[column].textContent;
  const collator = new Intl.Collator("en", { numeric: true });

  const compare = (one, other) => {
    const [a, b] = [Number(one), Number(other)];
    return Number.isNaN(a) || Number.isNaN(b) ? collator.compare(one, other) : a - b;
  };

  // Empty cells come last in either direction: what is not known is neither small nor great.
  const sort = (column, descending) => {
    const keyed = body.rows.length ? [...body.rows].map((row) => [value(row, column), row]) : [];
    const known = keyed.filter(([key]) => key !== "").sort(([a], [b]) => (descending ? compare(b, a) : compare(a, b)));
    body.append(...known.map(([, row]) => row), ...keyed.filter(([key]) => key === "").map(([, row]) => row));
  };

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const descending = before === null ? numeric : before === "ascending";
      for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(column, descending);
    });
  });

  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, place) => {
      row.hidden = !wanted.every((word) => words[place].includes(word));
      count += row.hidden ? 0 : 1;
    });
    shown.textContent = `${count} of ${rows.length}`;
  });
}
