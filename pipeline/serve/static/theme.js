// Dark or light, before the first paint: as chosen here earlier, else as the system says. Knows nothing else here.
"use strict";
(() => {
  try {
    const chosen = JSON.parse(localStorage.getItem("theme"));
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // No storage: the system's choice holds.
  }
})();
