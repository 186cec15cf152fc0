"use strict";
// What the page can do beyond showing: sort its tables, and play the film at a moment. Without scripts nothing is missing but that.

function asButton(element, label, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...element.childNodes);
  if (label) button.title = label;
  button.addEventListener("click", action);
  element.append(button);
}

function valueOf(cell) {
  return cell.dataset.value ?? cell.textContent;
}

function sortBy(heading) {
  const table = heading.closest("table");
  const column = heading.cellIndex;
  const isNumber = heading.dataset.sort === "number";
  const usual = isNumber ? "descending" : "ascending";
  const other = isNumber ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === usual ? other : usual;
  const sign = order === "ascending" ? 1 : -1;
  const compare = (first, second) => {
    const [a, b] = [valueOf(first.cells[column]), valueOf(second.cells[column])];
    if (!isNumber) return sign * a.localeCompare(b, undefined, { numeric: true });
    if (a === "" || b === "") return (a === "") - (b === ""); // what has no number stands last, whatever the order
    return sign * (Number(a) - Number(b));
  };
  const rows = [...table.tBodies[0].rows].sort(compare);
  table.tBodies[0].append(...rows);
  for (const each of heading.parentElement.cells) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
}

for (const heading of document.querySelectorAll("table.sortable th[data-sort]")) {
  asButton(heading, "Sort", () => sortBy(heading));
}

for (const section of document.querySelectorAll("section.video")) {
  const film = section.querySelector("video");
  if (film === null) continue;
  const begin = Number(section.dataset.begin);
  const duration = Number(section.dataset.duration);
  const cursor = section.querySelector(".cursor");
  const play = (seconds) => {
    film.currentTime = begin + seconds;
    film.scrollIntoView({ block: "nearest" });
    film.play().catch(() => {});
  };
  for (const time of section.querySelectorAll("[data-at]")) {
    asButton(time, "Play the film from here", () => play(Number(time.dataset.at)));
  }
  for (const score of section.querySelectorAll(".timeline .score")) {
    score.addEventListener("click", (event) => {
      const box = score.getBoundingClientRect();
      play(((event.clientX - box.left) / box.width) * duration);
    });
  }
  film.addEventListener("timeupdate", () => {
    cursor.hidden = false;
    cursor.style.left = `${Math.min(Math.max((film.currentTime - begin) / duration, 0), 1) * 100}%`;
  });
  film.addEventListener("error", () => {
    film.hidden = true;
    film.nextElementSibling.hidden = false;
  });
  // A film that failed before this script ran has told nobody.
  if (film.error !== null || film.networkState === HTMLMediaElement.NETWORK_NO_SOURCE) film.dispatchEvent(new Event("error"));
}
