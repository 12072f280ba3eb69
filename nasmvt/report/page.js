"use strict";
// One box for all hints: it shows the data-tip of what the pointer or the focus is on.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
function show(event) {
  const on = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  tip.hidden = !on;
  if (!on) return;
  tip.textContent = on.dataset.tip;
  const box = on.getBoundingClientRect();
  const x = event.clientX ?? box.left, y = event.clientY ?? box.bottom;
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4)) + "px";
  tip.style.top = (y + 14 + tip.offsetHeight < innerHeight ? y + 14 : y - tip.offsetHeight - 10) + "px";
}
for (const name of ["pointermove", "pointerdown", "focusin"]) document.addEventListener(name, show);
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
