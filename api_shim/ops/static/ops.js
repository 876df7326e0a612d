"use strict";

// The search, from anywhere.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const search = document.getElementById("search");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
});

// A command is copied by a click or the return key.
document.addEventListener("click", (event) => copy(event.target.closest("[data-copy]")));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter") copy(event.target.closest("[data-copy]"));
});
async function copy(place) {
  if (!place || !navigator.clipboard) return;
  await navigator.clipboard.writeText(place.textContent);
  place.classList.add("copied");
  window.setTimeout(() => place.classList.remove("copied"), 1500);
}

// What cannot be undone is asked about once; a form is sent once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.ask && !window.confirm(form.dataset.ask)) {
    event.preventDefault();
    return;
  }
  if (form.method === "post") form.querySelectorAll("button").forEach((button) => { button.disabled = true; });
});
window.addEventListener("pageshow", () => {
  document.querySelectorAll("form[method=post] button").forEach((button) => { button.disabled = false; });
});

// Figures that live: by event stream, and where that fails by asking every five seconds.
(() => {
  const places = new Map();
  document.querySelectorAll("[data-live]").forEach((place) => places.set(place.dataset.live, place));
  if (!places.size) return;
  const pulse = document.getElementById("pulse");
  let polling = 0;
  let failures = 0;

  function show(alive, words) {
    if (pulse.textContent !== words) pulse.textContent = words;
    pulse.classList.remove("wait");
    pulse.classList.toggle("lost", !alive);
  }

  function figures(texts) {
    for (const [name, text] of Object.entries(texts)) {
      const place = places.get(name);
      if (place && place.textContent !== text) place.textContent = text;
    }
    show(true, "live");
  }

  // What somebody is reading by keyboard or has selected is left alone until they go on.
  function parts(changed) {
    for (const [name, html] of Object.entries(changed)) {
      const place = document.querySelector(`[data-part="${name}"]`);
      if (!place || place.contains(document.activeElement)) continue;
      const selected = window.getSelection();
      if (selected && !selected.isCollapsed && place.contains(selected.anchorNode)) continue;
      place.innerHTML = html;
    }
  }

  async function poll() {
    try {
      const answer = await fetch("/ops/live.json", { redirect: "manual" });
      if (answer.type === "opaqueredirect") {
        window.location.reload();
        return;
      }
      const content = await answer.json();
      figures(content.figures);
      parts(content.parts);
    } catch {
      show(false, "no connection");
    }
  }

  function pollInstead() {
    if (polling) return;
    poll();
    polling = window.setInterval(poll, 5000);
  }

  if (!window.EventSource) {
    pollInstead();
    return;
  }
  const source = new EventSource("/ops/live");
  source.addEventListener("figures", (event) => { failures = 0; figures(JSON.parse(event.data)); });
  source.addEventListener("parts", (event) => parts(JSON.parse(event.data)));
  source.onerror = () => {
    failures += 1;
    if (source.readyState === EventSource.CLOSED || failures > 2) {
      source.close();
      pollInstead();
    }
  };
})();
