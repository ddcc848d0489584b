// Before anything is painted: the theme that was chosen, if one was.
"use strict";
try {
  const theme = localStorage.getItem("blotter.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // storage is closed to us: the system's theme then
}
