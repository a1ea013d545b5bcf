"use strict";
const words = document.getElementById("words");
const boxes = [...document.querySelectorAll("input[name=outcome]")];
function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const outcomes = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  for (const section of document.querySelectorAll("section")) {
    let any = false;
    const place = section.querySelector("h2").textContent.toLowerCase();
    for (const one of section.querySelectorAll("details")) {
      const text = place + " " + one.textContent.toLowerCase();
      one.hidden = !outcomes.has(one.dataset.outcome) || !wanted.every((word) => text.includes(word));
      any = any || !one.hidden;
    }
    section.hidden = !any;
  }
}
words.addEventListener("input", filter);
for (const box of boxes) box.addEventListener("change", filter);
function follow() {
  const one = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (one && one.tagName === "DETAILS") one.open = true;
}
addEventListener("hashchange", follow);
follow();
