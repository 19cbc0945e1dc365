// Sets the theme before the first paint; a classic script, because modules run too late for that.
try {
  const kept = localStorage.getItem("theme");
  document.documentElement.dataset.theme = ["light", "dark"].includes(kept) ? kept : "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}
